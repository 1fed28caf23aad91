"""How far a decision is from each other one, the way to it, and the step onto hyperplanes.

| code | meaning | symbol | source |
|---|---|---|---|
| gaps | z_k − z_y for other classes k | f'_k | Moosavi-Dezfooli et al., 1511.04599, algorithm 2 |
| slopes | their gradients in the input | w'_k | the same |
| nearest_plane | class with the smallest gap over dual norm of the slope | l | the same |
| onto_plane | least δ with w · δ = c inside the box | proj_p(x, π, C) | Croce, Hein, 1907.02044 |
| multipliers | of the least δ in L2 with every w_k · δ ≥ c_k | – | Hildreth, 1957 |
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from palpate.attacks._gradient import Rows, Search, some
from palpate.attacks._projection import shaped
from palpate.types import Bounds, Images, Logits, References

_SWEEPS: Final = 50
_CLOSE: Final = 1e-6  # relative: as near as float32 comes


class Contrasts(NamedTuple):
    """Other decisions against the true one, at some points.

    Attributes:
        logits: detached.
        gaps: (batch, others), below 0 while the truth leads.
        slopes: (batch, others, channel, *spatial).
    """

    logits: Logits
    gaps: Tensor
    slopes: Tensor


def likeliest(logits: Logits, labels: References, most: int) -> Tensor:
    """The other classes, likeliest first, (batch, at most `most`)."""
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.argsort(dim=1, descending=True)[:, : min(most, logits.shape[1] - 1)]


def contrasts(search: Search, images: Images, *, rows: Rows | None, classes: Tensor) -> Contrasts:
    """One forward, and one backward for each class; the points are remembered if they are best.

    Args:
        search: of a classification.
        images: iterates of the samples in `rows`.
        rows: indices of the samples; None for all.
        classes: (batch, others), the classes to compare with.
    """
    labels = some(search.references, rows).unsqueeze(1)

    def gaps(logits: Logits) -> Tensor:
        return logits.gather(1, classes) - logits.gather(1, labels)

    return _contrasted(search, images, rows=rows, gaps=gaps)


def flips(search: Search, images: Images, *, rows: Rows | None) -> Contrasts:
    """As `contrasts`, for labels that do not exclude each other: each against its opposite.

    Args:
        search: of a multi-label task.
        images: as there.
        rows: as there.
    """
    labels = some(search.references, rows)
    return _contrasted(search, images, rows=rows, gaps=lambda z: torch.where(labels > 0, -z, z))


def dual_size(slopes: Tensor, norm: str) -> Tensor:
    """Norm by which a gap is divided for the distance to its plane, (batch, others)."""
    flat = slopes.flatten(2)
    size = flat.abs().sum(2) if norm == "linf" else flat.norm(dim=2)
    return size.clamp(min=1e-12)


def nearest_plane(found: Contrasts, norm: str) -> tuple[Tensor, Images]:
    """Gap (batch,) and slope of the class whose linear boundary is nearest."""
    distance = found.gaps.abs() / dual_size(found.slopes, norm)
    which = distance.argmin(dim=1)
    at = torch.arange(len(which), device=which.device)
    return found.gaps[at, which], found.slopes[at, which]


def onto_plane(images: Images, gap: Tensor, slope: Images, *, norm: str, bounds: Bounds) -> Images:
    """Least change δ with gap + slope · δ = 0 such that images + δ stays within the bounds.

    In both norms δ_i grows in proportion to a single number t until pixel i meets its bound, and
    slope · δ is piecewise linear in t, so t is found exactly. Where no point of the box lies on the
    plane, the box's nearest corner is taken.

    Args:
        images: points within the bounds.
        gap: value of the linear function at the points, (batch,).
        slope: its gradient.
        norm: which norm is least.
        bounds: legal range.
    """
    way = slope * shaped(-gap.sign(), slope)  # the direction in which |gap| falls
    room = torch.where(way > 0, bounds.high - images, images - bounds.low).flatten(1)
    flat = way.flatten(1)
    size = flat.abs()
    moving = size > 0
    stop = room if norm == "linf" else room / torch.where(moving, size, 1.0)
    stop = torch.where(moving, stop, torch.zeros_like(stop))
    speed = size if norm == "linf" else size * size
    t = _reach(stop, speed, gap.abs()).unsqueeze(1)
    length = torch.minimum(t, room) if norm == "linf" else torch.minimum(t * size, room)
    return (flat.sign() * length).reshape(images.shape)


def common_plane(found: Contrasts, wanted: Tensor) -> tuple[Tensor, Images]:
    """One plane for many: gap (batch,) and slope of the sum that bounds all of them best.

    The nearest point at which no gap is below 0 lies on a plane that is their sum, each with a
    multiplier of 0 or more; here those of L2 without a box, by coordinate ascent on the dual.

    Args:
        found: gaps and slopes of the planes.
        wanted: (batch, others), the planes that count; at least one.
    """
    slopes, gaps = found.slopes.flatten(2), found.gaps.double()
    gram = (slopes @ slopes.transpose(1, 2)).double()
    multipliers = torch.zeros_like(gaps)
    for _ in range(_SWEEPS):
        for k in range(gaps.shape[1]):
            short = -gaps[:, k] - (gram[:, k] * multipliers).sum(dim=1)
            raised = multipliers[:, k] + short / gram[:, k, k].clamp(min=1e-24)
            multipliers[:, k] = torch.where(wanted[:, k], raised.clamp(min=0), 0)
    total = multipliers.sum(dim=1, keepdim=True).clamp(min=1e-30)
    shares = (multipliers / total).to(found.gaps.dtype)
    slope = (shares.unsqueeze(1) @ slopes).reshape(found.slopes[:, 0].shape)
    return (shares * found.gaps).sum(dim=1), slope


def _contrasted(
    search: Search, images: Images, *, rows: Rows | None, gaps: Callable[[Logits], Tensor]
) -> Contrasts:
    points = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = search.answer(points, rows)
        found = gaps(logits)
        slopes = [_slope(found[:, k].sum(), points) for k in range(found.shape[1])]
    logits, found, slope = logits.detach(), found.detach(), torch.stack(slopes, dim=1)
    slope = torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope))
    search.remember(images, rows, logits)
    search.feel((slope != 0).flatten(1).any(dim=1), rows)
    return Contrasts(logits, found, slope)


def _reach(stop: Tensor, speed: Tensor, wanted: Tensor) -> Tensor:
    """Smallest t with Σ speed_i · min(t, stop_i) = wanted; the largest stop where there is none.

    The sum is concave and piecewise linear in t, so that Newton's steps from 0 never pass the t
    that is wanted, and end on it once they are in its piece.
    """
    most, t = stop.amax(dim=1, keepdim=True), torch.zeros_like(stop[:, :1])
    while True:
        short = wanted.unsqueeze(1) - (speed * torch.minimum(stop, t)).sum(dim=1, keepdim=True)
        left = (speed * (stop > t)).sum(dim=1, keepdim=True)  # speed of those that still move
        nearer = torch.where(left > 0, t + short / left, most).minimum(most)
        if not bool((nearer > (1 + _CLOSE) * t).any()):
            return t.squeeze(1)
        t = torch.maximum(t, nearer)


def _slope(gap: Tensor, points: Images) -> Images:
    if not gap.requires_grad:
        return torch.zeros_like(points)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        gap, points, retain_graph=True, allow_unused=True
    )
    # None where the output does not hang on the input; torch's types leave that out
    return torch.zeros_like(points) if found[0] is None else found[0]  # pyright: ignore
