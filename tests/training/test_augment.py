"""Blur and corruptions as training changes; the others are in test_fit."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.errors import ConfigError
from palpate.training.augment import Blur, Corrupt
from palpate.training.recipe import parse_recipe


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(6, 2, 12, 10, generator=generator(7))


def test_blur_equals_scipy(images):
    found = Blur(deviation=1.5)(images, generator())
    deviations = torch.rand(6, 1, generator=generator()) * 1.5

    for i, deviation in enumerate(deviations.flatten().tolist()):
        for channel in range(2):
            plane = images[i, channel].numpy()
            expected = ndimage.gaussian_filter(plane, deviation, mode="nearest", radius=5)
            assert np.allclose(found[i, channel].numpy(), expected, atol=1e-5)


def test_corrupted_images_are_those_of_the_corruption(images):
    change = Corrupt(corruptions=("gaussian_noise",), severity=1, probability=1.0)

    found = change(images, generator())

    draws = generator()
    torch.rand(6, generator=draws)
    for low, high in ((0, 1), (1, 2)):
        torch.randint(low, high, (6,), generator=draws)
    seeds = torch.randint(2**62, (6,), generator=draws).tolist()
    assert torch.equal(found, GaussianNoise(severity=1)(images, seeds=seeds))


def test_some_images_are_left_alone_and_all_kinds_are_drawn(images):
    many = images.repeat(20, 1, 1, 1)
    found = Corrupt(probability=0.5)(many, generator())
    changed = (found != many).flatten(1).any(dim=1).float().mean()

    assert 0.3 < float(changed) < 0.7
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"corruptions": ["gausian_noise"]}, "did you mean 'gaussian_noise'"),
        ({"corruptions": []}, "at least one"),
        ({"severity": 6}, "severity"),
    ],
)
def test_unknown_corruptions_are_refused(wrong, message):
    data = {"dataset": {"name": "a"}, "target": {"name": "b"}, "epochs": 1}
    with pytest.raises(ConfigError, match=message):
        parse_recipe({**data, "augmentation": [{"name": "corrupt", **wrong}]})
