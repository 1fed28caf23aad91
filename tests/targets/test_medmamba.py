import pytest
import torch

from palpate import Classification, registry
from palpate.errors import CheckpointError
from palpate.types import Bounds


def load(**parameters):
    source = registry.create("targets", "medmamba", parameters)
    return source.load(task=Classification(("a", "b", "c")), channels=1, bounds=Bounds())


def test_nano_takes_small_grey_images():
    target = load(variant="nano")

    assert target.name == "MedMamba nano"
    assert target.logits(torch.rand(2, 1, 28, 28)).shape == (2, 3)


def test_weights_of_another_class_count_are_refused():
    from importlib import resources

    weights = resources.files("palpate") / "data" / "medmamba_nano_breastmnist.safetensors"

    with pytest.raises(CheckpointError, match=r"head.*expected \(3,.*got \(2,"):
        load(variant="nano", weights=str(weights))
