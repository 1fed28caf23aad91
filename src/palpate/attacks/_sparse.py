"""The L1 and L0 balls cut by the legal range: their nearest points, and the steepest way in L1.

Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", arXiv
2103.01208. Projecting on the ball (Duchi et al., 2008) and clipping afterwards is no projection on
both, and wastes budget; the steps are sparse, as in SLIDE (Tramèr, Boneh, arXiv 1904.13000).

| code | meaning | symbol | section |
|---|---|---|---|
| nearest | projection on ball and box | P_S(u) | 2.1, proposition 2.1 |
| room | how far a pixel can go | γ | 2.1 |
| shrink | what every change is shortened by | λ | 2.1 |
| sparse_way | steepest ascent direction with few entries | s | 2.2, 3.1 |
"""

import math
from typing import Final

import torch
from torch import Tensor

from palpate.types import Bounds, Images

_FIRST: Final = 0.05  # share of the entries in the first step
_HALF_ULP: Final = 2.0**-25  # of float32 below 1: what storing clean + change may add to each entry


def nearest(images: Images, clean: Images, *, epsilon: float | Tensor, bounds: Bounds) -> Images:
    """Nearest point whose L1 distance from `clean` is at most epsilon, within the bounds.

    Args:
        images: (batch, channel, *spatial), anywhere.
        clean: within the bounds.
        epsilon: one number, or one for each sample, (batch, 1, ...).
        bounds: legal range.
    """
    start = clean.double().flatten(1)
    difference = images.double().flatten(1) - start
    room = torch.where(difference > 0, bounds.high - start, start - bounds.low)
    length = difference.abs()
    wide = max(abs(bounds.low), abs(bounds.high))
    lost = (length > 0).sum(dim=1) * (_HALF_ULP * wide)
    radius = (torch.as_tensor(epsilon).to(lost).reshape(-1) - lost).clamp(min=0)
    shrink = _shrink(length, room, radius)
    kept = torch.minimum((length - shrink.unsqueeze(1)).clamp(min=0), room)
    moved = (start + difference.sign() * kept).reshape(clean.shape)
    return moved.to(clean.dtype).clamp(bounds.low, bounds.high)


def _shrink(length: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """λ ≥ 0 at which Σ min(max(length − λ, 0), room) is the radius; 0 where it is less already.

    The sum is piecewise linear in λ. From large λ downwards an entry joins at its length and is
    full at its length less its room; sorted, the corners are met one after the other.
    """
    corners = torch.cat([length, (length - room).clamp(min=0)], dim=1)
    turns = torch.cat([torch.ones_like(length), -torch.ones_like(length)], dim=1)
    corners, order = corners.sort(dim=1, descending=True)
    slope = turns.gather(1, order).cumsum(dim=1)
    steps = slope[:, :-1] * (corners[:, :-1] - corners[:, 1:])
    reached = torch.cat([torch.zeros_like(radius).unsqueeze(1), steps.cumsum(dim=1)], dim=1)
    before = (reached <= radius.unsqueeze(1)).sum(dim=1, keepdim=True) - 1
    here, above = corners.gather(1, before), reached.gather(1, before)
    rate = slope.gather(1, before)
    found = here - (radius.unsqueeze(1) - above) / rate.clamp(min=1)
    within = torch.minimum(length, room).sum(dim=1, keepdim=True) <= radius.unsqueeze(1)
    return torch.where(within, torch.zeros_like(found), found.clamp(min=0)).squeeze(1)


def largest(images: Images, clean: Images, *, count: float | Tensor) -> Images:
    """Nearest point with at most so many changed values: the largest changes are kept.

    Args:
        images: (batch, channel, *spatial), within the legal range.
        clean: where no value is changed.
        count: one number, or one for each sample, (batch, 1, ...).
    """
    change = (images - clean).abs().flatten(1)
    rank = change.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    kept = rank <= torch.as_tensor(count).to(change).reshape(-1, 1)
    return torch.where(kept.reshape(images.shape), images, clean)


def entries(size: int, *, share: float, epsilon: float, bounds: Bounds) -> int:
    """How many entries a step changes: from a twentieth down to what the budget can fill.

    Args:
        size: entries of a sample.
        share: share of the steps that are done.
        epsilon: L1 budget.
        bounds: legal range.
    """
    last = min(size, max(1, math.ceil(epsilon / (bounds.high - bounds.low))))
    first = max(last, round(_FIRST * size))
    return round(first * (last / first) ** share)


def sparse_way(gradient: Images, images: Images, *, count: int | Tensor, bounds: Bounds) -> Images:
    """Steepest ascent direction of L1 norm 1 with so many entries, as signs.

    Entries that stand at the bounds already are pushed against them as well and do not count:
    otherwise the projection would take from them what others get.

    Args:
        gradient: (batch, channel, *spatial).
        images: where it is.
        count: one number, or one for each sample, (batch,).
        bounds: legal range.
    """
    slope = gradient.flatten(1)
    flat = images.flatten(1)
    full = ((slope > 0) & (flat >= bounds.high)) | ((slope < 0) & (flat <= bounds.low))
    steep = slope.abs()
    most = int(torch.as_tensor(count).max())
    each = torch.as_tensor(count, device=slope.device).expand(len(slope)).unsqueeze(1)
    ranked = torch.where(full, -1.0, steep).topk(most, dim=1).values
    chosen = (steep >= ranked.gather(1, each - 1)) & (steep > 0)
    way = torch.where(chosen, slope.sign(), torch.zeros_like(slope)) / each
    return way.reshape(images.shape)
