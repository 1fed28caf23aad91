"""Smooth fields from few numbers: uniform cubic B-splines on a grid of control points.

The weights of a point are not negative and sum to 1, so a field never leaves the range of its
control points: a limit on these is a limit on the field. One span is one cubic polynomial.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def control_points(spans: int, axes: int) -> tuple[int, ...]:
    """Shape of the grid of control points; three more than spans along each axis."""
    return (spans + 3,) * axes


def weights(side: int, *, spans: int, like: Tensor) -> Tensor:
    """Weight of each control point at the centre of each pixel, (side, spans + 3).

    Args:
        side: pixels along the axis.
        spans: pieces that the axis is cut into.
        like: gives the type and the device.
    """
    place = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side * spans
    span = place.floor().clamp(max=spans - 1)
    u = place - span
    pieces = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)
    made = torch.zeros((side, spans + 3), dtype=like.dtype, device=like.device)
    columns = span.long().unsqueeze(1) + torch.arange(4, device=like.device)
    return made.scatter(1, columns, torch.stack(pieces, dim=1) / 6)


def field(points: Tensor, sides: Sequence[int], *, spans: int) -> Tensor:
    """Values at all pixels, (batch, *sides), differentiable in the control points.

    Args:
        points: (batch, *control points).
        sides: pixels along each axis.
        spans: pieces that each axis is cut into.
    """
    for side in sides:  # each turn takes the first axis of points and appends one of pixels
        along = weights(side, spans=spans, like=points).unbind(dim=1)
        # term by term: a matrix product rounds otherwise for another batch size
        terms = (p.unsqueeze(-1) * w for p, w in zip(points.unbind(dim=1), along, strict=True))
        points = functools.reduce(torch.add, terms)
    return points
