"""Base of the attacks that are PGD on one loss of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from palpate.attacks._climb import SteppedAttack
from palpate.attacks._gradient import Search
from palpate.attacks.pgd import Pgd
from palpate.types import Images


@dataclass(frozen=True)
class PixelPgd(SteppedAttack):
    """PGD on the loss that a component fixes.

    Attributes:
        random_start: begin at a uniform draw from the ball; else at the clean image.
    """

    steps: int = 20
    random_start: bool = True

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        return Pgd(
            epsilon=self.epsilon,
            norm=self.norm,
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.random_start,
        )._run(search, seeds)
