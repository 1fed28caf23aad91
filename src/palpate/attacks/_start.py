"""Random points of the ball around each sample, each from the sample's own seed."""

from collections.abc import Sequence

import torch

from palpate.attacks._projection import direction, project, shaped, size
from palpate.perturbation import draw_normal, draw_uniform
from palpate.types import Bounds, Images

_STRIDE = 0x9E3779B97F4A7C15  # golden-ratio increment: distinct seeds for each use of one seed
_MASK = (1 << 63) - 1


def reseed(seed: int, use: int) -> int:
    """Another seed from the same one, for the use-th restart or draw; use 0 is the seed itself."""
    return (seed + use * _STRIDE) & _MASK


def uniform_start(
    clean: Images, seeds: Sequence[int], *, norm: str, epsilon: float, bounds: Bounds
) -> Images:
    """Uniform draw from the epsilon ball around each sample, clipped to the bounds."""
    if norm == "linf":
        offset = epsilon * (2 * draw_uniform(clean, seeds) - 1)
    elif norm == "l1":
        # uniform in the l1 ball: exponentials over their sum and one more
        lengths = -torch.log1p(-draw_uniform(clean, seeds))
        more = draw_uniform(clean, [reseed(s, -1) for s in seeds])
        total = size(lengths, "l1") - torch.log1p(-more.flatten(1)[:, 0])
        signs = torch.where(draw_uniform(clean, [reseed(s, -2) for s in seeds]) < 0.5, -1.0, 1.0)
        offset = epsilon * signs * lengths / shaped(total, clean)
    else:
        # uniform in the l2 ball: a normal direction, radius ~ U^(1/dimensions)
        radius = draw_uniform(clean[:, :1], [reseed(s, -1) for s in seeds]).flatten(1)[:, 0]
        radius = epsilon * radius ** (1 / clean[0].numel())
        offset = direction(draw_normal(clean, seeds), "l2") * shaped(radius, clean)
    return project(clean + offset, clean, norm=norm, epsilon=epsilon, bounds=bounds)


def border_start(
    clean: Images, seeds: Sequence[int], *, norm: str, epsilon: float, bounds: Bounds
) -> Images:
    """Random direction at full length around each sample, clipped to the bounds."""
    if norm == "linf":
        way = 2 * draw_uniform(clean, seeds) - 1
        way = way / shaped(size(way, "linf"), clean).clamp(min=1e-30)
    else:
        way = direction(draw_normal(clean, seeds), "l2")
    return project(clean + epsilon * way, clean, norm=norm, epsilon=epsilon, bounds=bounds)
