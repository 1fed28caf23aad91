"""Fast gradient sign method: one step of the whole budget.

Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572,
section 4; the l2 form takes the normalised gradient instead of its sign.

| code | meaning | symbol | section |
|---|---|---|---|
| epsilon | budget | ε | 4 |
| search.gradient | gradient of the loss in the input | ∇x J(θ, x, y) | 4 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from palpate.attacks._gradient import Search
from palpate.attacks._projection import direction, project
from palpate.attacks.base import Attack
from palpate.types import Images


@final
@dataclass(frozen=True)
class Fgsm(Attack):
    """x + ε · sign(∇x J), clipped to the bounds."""

    @property
    @override
    def passes(self) -> float:
        return 5.0

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        step = self.epsilon * direction(search.gradient(search.images), self.norm)
        last = project(
            search.images + step,
            search.images,
            norm=self.norm,
            epsilon=self.epsilon,
            bounds=search.target.bounds,
        )
        search.look(last)
        return last
