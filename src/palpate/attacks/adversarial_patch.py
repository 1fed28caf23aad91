"""A patch of free grey values on each picture, such as a marker, a label or a plaster.

Brown et al., "Adversarial Patch", arXiv 1712.09665; here each picture has a patch of its own, which
is optimised for it by projected gradients (Madry et al., arXiv 1706.06083), so that it bounds what
a printed patch for all pictures can do. The salient place is the one where the first-order gain of
the best patch is largest; on a linear model it is the optimum.

| code | meaning | symbol | section |
|---|---|---|---|
| coverage | share of the pixels under the patch | – | 2 |
| place | corner of the patch | l | 2 |
| applied | the picture with the patch on it | A(p, x, l, t) | 2 |

The patch may cover the finding itself: a lesion that is hidden is missed for a good reason. What it
hides is counted nevertheless, in labels as in masks, so compare with `patch_drop` or with the same
patch at a random place before a model is blamed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.attacks._climb import ClimbingAttack, check_steps
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._start import reseed
from palpate.errors import BudgetError, ConfigError
from palpate.perturbation import draw_uniform, generators
from palpate.registry import Number
from palpate.types import Images

Corners = Tensor  # (batch, axes), first pixel of each patch
Sides = tuple[int, ...]


@final
@dataclass(frozen=True)
class AdversarialPatch(ClimbingAttack):
    """Search the grey values under a patch that has the proportions of the picture.

    Attributes:
        coverage: largest share of the pixels under the patch, 0 to 1.
        placement: "salient" where the gradient promises most, "random" for each sample, "centre".
        steps: gradient steps from each start.
        step_size: in units of the bounds; None for 2.5 · width of the bounds / steps.
        restarts: starts with other grey values, and at the next place that is "random" or
            "salient". A sample whose score is 0 starts no more.
    """

    dose: ClassVar[str] = "coverage"

    coverage: Number = field(default=0.05, kw_only=True)
    placement: Literal["salient", "random", "centre"] = "salient"
    steps: int = 40
    step_size: Number | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)
        if not 0 <= self.coverage <= 1:
            raise ConfigError(f"coverage: expected 0 to 1, got {self.coverage}")
        if self.restarts < 1:
            raise ConfigError(f"restarts: expected 1 or more, got {self.restarts}")

    @property
    @override
    def budget(self) -> float:
        return self.coverage

    @property
    @override
    def passes(self) -> float:
        return self.restarts * (3.0 * self.steps + 1) + 3

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images, sides = search.images, self._sides(search.images)
        gains = self._gains(search, sides) if self.placement == "salient" else None
        for restart in range(self.restarts):
            rows = search.standing() if restart else None
            if rows is not None and not len(rows):
                break
            if gains is None:
                corners = self._corners(images, sides, [reseed(s, 2 * restart) for s in seeds])
            else:
                corners, gains = _best(gains, sides)
            content = draw_uniform(images, [reseed(seed, 2 * restart + 1) for seed in seeds])
            under = _under(corners, sides, images)
            last = self._climb(search, some(content, rows), some(under, rows), rows)
            images = put(images, rows, last)
        return images

    def _climb(self, search: Search, content: Images, under: Tensor, rows: Rows | None) -> Images:
        bounds, clean = search.target.bounds, some(search.images, rows)
        width = bounds.high - bounds.low
        length = 2.5 * width / self.steps if self.step_size is None else self.step_size
        images = torch.where(under, (bounds.low + width * content).clamp(*bounds), clean)
        for step in range(self.steps):
            gradient = search.gradient(images, rows=rows, progress=step / self.steps)
            moved = (images + length * gradient.sign()).clamp(bounds.low, bounds.high)
            images = torch.where(under, moved, clean)
        search.look(images, rows=rows)
        return images

    def _sides(self, images: Images) -> Sides:
        spatial = tuple(images.shape[2:])
        # 1e-9: half of 28 pixels are 14, whatever the root is rounded to
        sides = tuple(int(n * self.coverage ** (1 / len(spatial)) + 1e-9) for n in spatial)
        if min(sides) < 1:
            raise ConfigError(
                f"coverage: expected a share that makes a patch on images of {spatial}, got"
                f" {self.coverage:g}"
            )
        return sides

    def _corners(self, images: Images, sides: Sides, seeds: Sequence[int]) -> Corners:
        free = torch.tensor([n - side + 1 for n, side in zip(images.shape[2:], sides, strict=True)])
        if self.placement == "centre":
            return ((free - 1) // 2).expand(len(images), -1).to(images.device)
        drawn = torch.stack([torch.rand(len(sides), generator=g) for g in generators(seeds)])
        return (drawn * free).long().minimum(free - 1).to(images.device)

    def _gains(self, search: Search, sides: Sides) -> Tensor:
        """First-order gain of the best patch at each place, (batch, *places)."""
        clean, bounds = search.images, search.target.bounds
        slope = search.gradient(clean)
        gain = torch.maximum(slope * (bounds.high - clean), slope * (bounds.low - clean))
        pool = {2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(sides)]
        return pool(gain.sum(dim=1, keepdim=True), sides, stride=1).squeeze(1) * prod(sides)

    @override
    def _check_budget(self, search: Search, images: Images) -> None:
        changed = (images != search.images).any(dim=1)
        for axis, side in enumerate(self._sides(images), start=1):
            others = [a for a in range(1, changed.ndim) if a != axis]
            along = changed.any(dim=others)
            place = torch.arange(along.shape[1], device=along.device).expand_as(along)
            first = torch.where(along, place, along.shape[1]).amin(dim=1)
            last = torch.where(along, place, -1).amax(dim=1)
            wide = int((last - first).max()) + 1
            if wide > side:
                raise BudgetError(f"{self!r}: expected a patch {side} pixels wide, got {wide}")


def _best(gains: Tensor, sides: Sides) -> tuple[Corners, Tensor]:
    """The place with the largest gain, and the gains without the places that it half covers."""
    places = gains.shape[1:]
    best = gains.flatten(1).argmax(dim=1)
    corners = torch.stack(torch.unravel_index(best, places), dim=1)
    near = torch.ones_like(gains, dtype=torch.bool)
    for axis, (count, side) in enumerate(zip(places, sides, strict=True)):
        apart = (torch.arange(count, device=gains.device) - corners[:, axis : axis + 1]).abs()
        shape = [len(gains), *(1 for _ in places)]
        shape[1 + axis] = count
        near &= (2 * apart < side).reshape(shape)
    return corners, gains.masked_fill(near, -torch.inf)


def _under(corners: Corners, sides: Sides, images: Images) -> Tensor:
    """Whether a pixel lies under the patch, (batch, 1, *spatial)."""
    under = torch.ones((len(images), 1, *images.shape[2:]), dtype=torch.bool, device=images.device)
    for axis, (count, side) in enumerate(zip(images.shape[2:], sides, strict=True)):
        along = torch.arange(count, device=images.device) - corners[:, axis : axis + 1]
        shape = [len(images), *(1 for _ in images.shape[1:])]
        shape[2 + axis] = count
        under &= ((along >= 0) & (along < side)).reshape(shape)
    return under
