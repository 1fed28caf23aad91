"""Square windows at random places, as the Square Attack changes them.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random
search", arXiv 1912.00049.

| code | meaning | symbol | section |
|---|---|---|---|
| share_at | share of the pixels in a window after so many queries | p | 3.2, supplement B |
| side_of | side of that window | h(i) | 3.2 |
| bump | two pyramids of opposite sign, of norm 1 | η | 3.4, eq. 2 |
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_HALVED_AT: Final = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


def share_at(query: int, *, first: float, queries: int, rescale: bool) -> float:
    """Share of the pixels in a window, halved again and again.

    Args:
        query: number of the query, from 0.
        first: share at the start.
        queries: how many there are.
        rescale: spread the published schedule of 10,000 queries over these; the standard ensemble
            does not.
    """
    at = query * 10_000 // queries if rescale else query
    return first / 2 ** sum(at > mark for mark in _HALVED_AT)


def side_of(share: float, spatial: tuple[int, ...], *, least: int = 1) -> int:
    """Side of a cube (square) that covers this share of the pixels."""
    side = round((share * math.prod(spatial)) ** (1 / len(spatial)))
    return max(least, min(side, *spatial))


@dataclass(frozen=True)
class Windows:
    """All windows of one side in images of one size, at draws from [0, 1) for each axis.

    Attributes:
        side: in pixels.
        spatial: size of the images.
    """

    side: int
    spatial: tuple[int, ...]

    def places(self, corner: Tensor, channels: int) -> Tensor:
        """Entries of the windows in images laid out flat, (batch, channels · side^axes).

        Args:
            corner: (batch, axes) uniform draws.
            channels: of the images; a window has all of them.
        """
        first = torch.zeros_like(corner[:, 0], dtype=torch.long)
        inside = torch.arange(channels, device=corner.device)
        for axis, size in enumerate(self.spatial):
            first = first * size + _starts(corner[:, axis], self.side, size)
            along = torch.arange(self.side, device=corner.device)
            inside = (inside.unsqueeze(1) * size + along).flatten()
        return first.unsqueeze(1) + inside

    def masks(self, corner: Tensor) -> Tensor:
        """Masks (batch, 1, *spatial) of the windows.

        Args:
            corner: (batch, axes) uniform draws.
        """
        mask = torch.zeros((len(corner), math.prod(self.spatial)), dtype=torch.bool)
        mask = mask.to(corner.device).scatter_(1, self.places(corner, 1), value=True)
        return mask.reshape(-1, 1, *self.spatial)


def placed(patches: Tensor, corner: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """Patches (batch, channel, side, side) in images of zeros, at draws from [0, 1)."""
    batch, channels, side = patches.shape[:3]
    along = torch.arange(side, device=patches.device)
    row, column = (
        _starts(corner[:, axis], side, size).unsqueeze(1) + along
        for axis, size in enumerate(spatial)
    )
    canvas = patches.new_zeros((batch, channels, *spatial))
    which = torch.arange(batch, device=patches.device).reshape(-1, 1, 1, 1)
    channel = torch.arange(channels, device=patches.device).reshape(1, -1, 1, 1)
    canvas[which, channel, row[:, None, :, None], column[:, None, None, :]] = patches
    return canvas


def bump(side: int, like: Tensor) -> Tensor:
    """(side, side): a pyramid above, one of opposite sign below, of norm 1 together."""
    upper = side // 2
    both = torch.cat([_pyramid(upper, side, like), -_pyramid(side - upper, side, like)])
    return both / both.norm()


def _pyramid(height: int, width: int, like: Tensor) -> Tensor:
    """Σ 1 / (k + 1)² over the rectangles of radius k around the centre that hold the pixel."""
    rows = torch.arange(height, device=like.device) - height // 2
    columns = torch.arange(width, device=like.device) - width // 2
    radius = torch.maximum(rows.abs().unsqueeze(1), columns.abs().unsqueeze(0))
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2, device=like.device) ** 2
    sums = terms.flip(0).cumsum(dim=0).flip(0).to(like.dtype)
    made = sums[radius]
    return made / made.norm()


def _starts(draw: Tensor, side: int, size: int) -> Tensor:
    return (draw * (size - side + 1)).long().clamp(max=size - side)
