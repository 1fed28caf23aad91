import pytest
import torch

from palpate import Classification, registry
from palpate.errors import TargetError, UnknownComponent
from palpate.types import Bounds


def load(**parameters):
    source = registry.create("targets", "timm", parameters)
    return source.load(task=Classification(("a", "b")), channels=1, bounds=Bounds())


def test_small_stem_keeps_the_resolution_of_small_images():
    target = load(small_stem=True, arguments={"channels": [8, 8, 8, 8]})

    assert target.module.conv1.stride == (1, 1)
    assert target.logits(torch.rand(2, 1, 28, 28)).shape == (2, 2)


def test_unknown_models_offer_neighbours():
    with pytest.raises(UnknownComponent, match="did you mean.*'resnet18'"):
        load(model="resnet8")


def test_small_stem_needs_a_resnet():
    with pytest.raises(TargetError, match="expected a ResNet with conv1 and maxpool"):
        load(model="vit_tiny_patch16_224", small_stem=True)
