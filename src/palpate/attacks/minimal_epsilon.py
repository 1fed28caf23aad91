"""Smallest budget at which PGD breaks each sample, by bisection: the whole curve from one run.

The distances in the record are the curve of robust accuracy over epsilon and its median. PGD is
that of Madry et al., arXiv 1706.06083, section 2.1; each sample has a budget of its own. A mask is
broken when its Dice falls below a bar, or when a share of its pixels is wrong.

| code | meaning | symbol |
|---|---|---|
| budgets | budgets that are tried at once, rising, (batch, packed) | ε |
| low, high | largest budget that held, nearest broken input so far | – |
| _GROWTH | factor of the budget while nothing breaks | – |
| _SPAN | packed budgets that are as far apart as that; more stand closer | – |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._loss import LossName, Objective
from palpate.attacks._nearest import CriterionAttack
from palpate.attacks._projection import direction, project, shaped
from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Images

_GROWTH: Final = 8.0
_SPAN: Final = 3
_FIRST: Final = 1 / 255  # of the width of the bounds, for each pixel


@final
@dataclass(frozen=True)
class MinimalEpsilon(CriterionAttack):
    """PGD from the clean image at budgets that grow until it breaks, then close in.

    Attributes:
        steps: gradient steps for each budget.
        searches: rounds; in each, the interval that holds the smallest budget shrinks to one part
            of packed + 1.
        loss: what is climbed.
        packed: budgets tried at once in each round, as one batch that is so many times as large
            and takes so many times the memory. More of them need fewer rounds but more passes in
            all: 3 rounds of 7 shrink the interval as much as 9 of 1, for 21 passes in place of 9,
            which pays where small batches leave the device idle.
    """

    steps: int = 20
    searches: int = 10
    loss: LossName = "ce"
    packed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        for name in ("searches", "packed"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {getattr(self, name)}")

    @property
    @override
    def objective(self) -> Objective:
        return Objective(self.loss)

    @override
    def check(self, target: Target) -> None:
        """Refuse a loss that the task does not have.

        Raises:
            ConfigError: with the losses that the task has.
        """
        super().check(target)
        self.objective.check(target.task)

    @property
    @override
    def passes(self) -> float:
        return self.searches * self.packed * (3.0 * self.steps + 1)

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        bounds = search.target.bounds
        pixels = 1 if self.norm == "linf" else math.sqrt(search.images[0].numel())
        widest = (bounds.high - bounds.low) * pixels
        wide = search if self.packed == 1 else search.copies(self.packed)
        low = torch.zeros_like(search.distance)
        budgets = self._growing(torch.full_like(low, _FIRST * widest / self._growth))
        for _ in range(self.searches):
            before = wide.distance
            self._climb(wide, wide.images, shaped(budgets.flatten(), wide.images))
            low = _held(low, budgets, (wide.distance < before).reshape(budgets.shape))
            high = wide.distance.reshape(budgets.shape).amin(dim=1)
            grown = self._growing(budgets[:, -1])
            still = torch.isinf(high).unsqueeze(1)
            budgets = torch.where(still, grown, self._between(low, high)).clamp(max=widest)
        if wide is not search:
            search.gather(wide)

    @override
    def _ask_once(self, search: Search) -> None:
        super()._ask_once(search.copies(self.packed))

    @property
    def _growth(self) -> float:
        return _GROWTH ** min(1.0, _SPAN / self.packed)

    def _growing(self, last: Tensor) -> Tensor:
        """The next budgets after the largest that was tried, (batch, packed)."""
        factors = [self._growth ** (k + 1) for k in range(self.packed)]
        return last.unsqueeze(1) * torch.tensor(factors, dtype=last.dtype, device=last.device)

    def _between(self, low: Tensor, high: Tensor) -> Tensor:
        """Budgets that cut the interval into equal parts, (batch, packed)."""
        upper = torch.arange(1, self.packed + 1, dtype=low.dtype, device=low.device)
        lower = upper.flip(0)
        return (low.unsqueeze(1) * lower + high.unsqueeze(1) * upper) / (self.packed + 1)

    def _climb(self, search: Search, images: Images, budget: Tensor) -> None:
        for step in range(self.steps):
            gradient = search.gradient(images, progress=step / self.steps)
            way = direction(gradient, self.norm)
            images = project(
                images + 2.5 * budget / self.steps * way,
                search.images,
                norm=self.norm,
                epsilon=budget,
                bounds=search.target.bounds,
            )
        search.look(images)


def _held(low: Tensor, budgets: Tensor, broken: Tensor) -> Tensor:
    """The largest budget below the smallest that broke; the old one where that is the first."""
    count = (~broken).long().cumprod(dim=1).sum(dim=1)
    last = budgets.gather(1, (count - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(count > 0, last, low)
