"""Checks of corruptions."""

import dataclasses
import itertools
from functools import partial

import torch

from palpate.contracts.oracles import expect, raises
from palpate.corruptions.base import Corruption
from palpate.errors import ConfigError


def check_severity_zero_is_identity(corruption: Corruption) -> None:
    """Severity 0 gives the very images back."""
    images = _images()
    same = dataclasses.replace(corruption, severity=0)(images)
    expect(torch.equal(same, images), f"{corruption!r}: severity 0 changed the images")


def check_distance_grows_with_severity(corruption: Corruption) -> None:
    """Mean distance from the clean image grows from severity 1 to 5."""
    images = _images()
    distances = [
        float((dataclasses.replace(corruption, severity=s)(images) - images).abs().mean())
        for s in range(6)
    ]
    grows = all(a < b for a, b in itertools.pairwise(distances))
    expect(grows, f"{corruption!r}: distances over severity are {distances}")


def check_severity_range(corruption: Corruption) -> None:
    """Only 0 to 5 exist."""
    for severity in (-1, 6):
        change = partial(dataclasses.replace, corruption, severity=severity)
        refused = raises(ConfigError, change)
        expect(refused, f"{corruption!r}: accepted severity {severity}")


def check_any_size(corruption: Corruption) -> None:
    """Small, large and non-square images, one and three channels."""
    for shape in ((1, 28, 28), (3, 28, 40), (3, 64, 48), (1, 224, 224)):
        images = torch.rand((1, *shape), generator=torch.Generator().manual_seed(1))
        expect(corruption(images).shape == images.shape, f"{corruption!r}: changed shape {shape}")


def _images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand((4, 1, 7, 7), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic").clamp(0.1, 0.9)
