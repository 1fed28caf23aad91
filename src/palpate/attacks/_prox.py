"""Proximity operator of the largest absolute value, inside a box, in a diagonal metric.

| code | meaning | symbol | source |
|---|---|---|---|
| points | where to begin | δ | Rony, Pesquet, Ben Ayed, 2206.07179 |
| metric | weight of each pixel | H | the same |
| weight | of the norm | λ | the same |
| low, high | box of the legal changes, around 0 | Λ | the same |

The paper searches the norm of the result by ternary search; here it is found exactly, by sorting.
"""

import torch
from torch import Tensor

from palpate.types import Images


def prox_linf(
    points: Images, *, metric: Images, weight: Tensor, low: Images, high: Images
) -> Images:
    """Find the z in the box with the least ½ Σ h_i (z_i − p_i)² + w · max |z_i|, per sample.

    For a given largest value t the best z is p clipped to the box and to [−t, t]. Pixels that t
    clips, and that the box does not clip first, pull t up by h_i (|p_i| − t); t is where their sum
    has fallen to w.

    Args:
        points: p, (batch, channel, *spatial).
        metric: h > 0, same shape.
        weight: w ≥ 0, (batch,).
        low: at most 0, same shape.
        high: at least 0, same shape.
    """
    flat = points.flatten(1).double()
    inside = torch.minimum(torch.maximum(flat, low.flatten(1)), high.flatten(1))
    # a pixel stops to pull when t meets its place inside the box
    stop, order = inside.abs().sort(dim=1, descending=True)
    weights = metric.flatten(1).double().gather(1, order)
    pulled = (weights * flat.abs().gather(1, order)).cumsum(dim=1)
    total = weights.cumsum(dim=1)
    # with the first k + 1 pixels pulling, t solves pulled − t · total = w; it counts down to the
    # place where the next pixel would join
    reach = (pulled - weight.double().unsqueeze(1)) / total
    joins = torch.cat([stop[:, 1:], torch.zeros_like(stop[:, :1])], dim=1)
    enough = reach >= joins
    first = enough.to(torch.int8).argmax(dim=1, keepdim=True)
    found = torch.minimum(reach.gather(1, first), stop.gather(1, first))
    t = torch.where(enough.any(dim=1, keepdim=True), found, torch.zeros_like(found))
    return inside.clamp(-t, t).to(points.dtype).reshape(points.shape)
