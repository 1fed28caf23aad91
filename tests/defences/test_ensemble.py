import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from palpate import config
from palpate.contracts.oracles import batch, probe
from palpate.defences.ensemble import Ensemble
from palpate.errors import CheckpointError, ConfigError
from palpate.targets.base import Target
from palpate.types import Segmentation


class Planes(nn.Module):
    """Two sigmoid planes, or one softmax plane against background, from a convolution."""

    def __init__(self, planes):
        super().__init__()
        self.conv = nn.Conv2d(1, planes, 3, padding=1)

    def forward(self, images):
        return self.conv(images)


def other_weights(target, path):
    member = copy.deepcopy(target.module)
    with torch.no_grad():
        for parameter in member.parameters():
            parameter.mul_(-0.5)
    save_file(member.state_dict(), path)
    return target.with_module(member)


def test_probabilities_are_the_mean_of_the_members(tmp_path):
    target, given = probe(), batch(4)
    other = other_weights(target, tmp_path / "other.safetensors")
    defence = Ensemble(weights=(tmp_path / "other.safetensors",), mirror=False)
    found = defence.protect(target).predict(given).probabilities
    expected = (target.predict(given).probabilities + other.predict(given).probabilities) / 2
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_mirrored_image_counts_as_a_member():
    target, given = probe(), batch(4)
    mirrored = given.with_images(given.images.flip(-1))
    found = Ensemble().protect(target).predict(given).probabilities
    expected = (target.predict(given).probabilities + target.predict(mirrored).probabilities) / 2
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("planes", "exclusive"), [(2, False), (1, True)])
def test_masks_are_mirrored_back(planes, exclusive):
    torch.manual_seed(0)
    target = Target(Planes(planes).eval(), Segmentation(("a", "b"), exclusive=exclusive))
    images = torch.rand(3, 1, 6, 6)
    names = ("x", "y", "z")
    given = type(batch(1))(images, torch.zeros(3, 6, 6).long(), names, names, ("",) * 3)
    turned = target.predict(given.with_images(images.flip(-1))).probabilities.flip(-1)
    expected = (target.predict(given).probabilities + turned) / 2
    found = Ensemble().protect(target).predict(given).probabilities
    assert found.shape == (3, 2, 6, 6)
    assert torch.allclose(found, expected, atol=1e-6)


def test_very_sure_members_do_not_overflow():
    target, given = probe(), batch(2)
    with torch.no_grad():
        target.module.head.weight.mul_(1e6)
    assert bool(Ensemble().protect(target).predict(given).finite.all())


def test_relative_weights_start_from_the_audit_file(tmp_path):
    other_weights(probe(), tmp_path / "other.safetensors")
    spec = {"name": "ensemble", "weights": ["other.safetensors"]}
    defence = config.build("defences", spec, tmp_path)
    assert defence.protect(probe()).predict(batch(2)).logits.shape == (2, 3)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(Planes(2).state_dict(), tmp_path / "planes.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        Ensemble(weights=(tmp_path / "planes.safetensors",)).protect(probe())


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ConfigError, match="expected further weights or mirror"):
        Ensemble(mirror=False)
