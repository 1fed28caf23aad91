"""Smallest budget at which PGD breaks each sample, by bisection: the whole curve from one run.

The distances in the record are the curve of robust accuracy over epsilon and its median. PGD is
that of Madry et al., arXiv 1706.06083, section 2.1; each sample has a budget of its own. A mask is
broken when its Dice falls below a bar, or when a share of its pixels is wrong.

| code | meaning | symbol |
|---|---|---|
| budget | budget that is tried, per sample | ε |
| low, high | largest budget that held, nearest broken input so far | – |
| _GROWTH | factor of the budget while nothing breaks | – |
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
_FIRST: Final = 1 / 255  # of the width of the bounds, for each pixel


@final
@dataclass(frozen=True)
class MinimalEpsilon(CriterionAttack):
    """PGD from the clean image at budgets that grow until it breaks, then close in.

    Attributes:
        steps: gradient steps for each budget.
        searches: budgets tried for each sample.
        loss: what is climbed.
    """

    steps: int = 20
    searches: int = 10
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        if self.searches < 1:
            raise ConfigError(f"searches: expected 1 or more, got {self.searches}")

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
        return self.searches * (3.0 * self.steps + 1)

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        bounds = search.target.bounds
        pixels = 1 if self.norm == "linf" else math.sqrt(search.images[0].numel())
        widest = (bounds.high - bounds.low) * pixels
        low = torch.zeros_like(search.distance)
        budget = torch.full_like(low, _FIRST * widest)
        for _ in range(self.searches):
            before = search.distance
            self._climb(search, search.images, shaped(budget, search.images))
            high = search.distance
            low = torch.where(high < before, low, budget)
            budget = torch.where(torch.isinf(high), budget * _GROWTH, (low + high) / 2)
            budget = budget.clamp(max=widest)

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
