"""Checks of occlusions."""

import dataclasses

import torch

from palpate.contracts.oracles import expect
from palpate.occlusions.base import Occlusion


def check_zero_coverage_is_identity(occlusion: Occlusion) -> None:
    """Coverage 0 gives the very images back."""
    images = _images()
    same = dataclasses.replace(occlusion, coverage=0.0)(images)
    expect(torch.equal(same, images), f"{occlusion!r}: coverage 0 changed the images")


def check_stated_share_is_hidden(occlusion: Occlusion) -> None:
    """Each sample loses the stated share of its area, to within one per cent."""
    images = _images()
    for coverage in (0.1, 0.3, 0.5, 0.9, 1.0):
        one = dataclasses.replace(occlusion, coverage=coverage, fill="zero")
        shares = (one(images) == 0).float().flatten(1).mean(dim=1)
        worst = float((shares - coverage).abs().max())
        expect(worst <= 0.01, f"{one!r}: hides {shares.tolist()}")


def check_rest_is_untouched(occlusion: Occlusion) -> None:
    """What is not hidden stays as it was, under every fill."""
    images = _images()
    hidden = dataclasses.replace(occlusion, fill="zero")(images) == 0
    filled = dataclasses.replace(occlusion, fill="mean")(images)
    expect(torch.equal(filled[~hidden], images[~hidden]), f"{occlusion!r}: touched visible pixels")


def check_masks_differ_between_samples(occlusion: Occlusion) -> None:
    """Every sample has a mask of its own."""
    images = _images()[:1].repeat(2, 1, 1, 1)
    hidden = dataclasses.replace(occlusion, coverage=0.5, fill="zero")(images) == 0
    expect(not torch.equal(hidden[0], hidden[1]), f"{occlusion!r}: one mask for all samples")


def _images() -> torch.Tensor:
    return torch.rand((4, 1, 28, 28), generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
