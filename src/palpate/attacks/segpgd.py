"""SegPGD: PGD whose weight moves from the pixels that are right to those that are wrong.

Gu et al., "SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and Boosting
Segmentation Robustness", arXiv 2207.12391, section 3.2 and algorithm 1; the loss is in
`_dense_loss`. Without steps to come the right pixels alone count; at the end both count the same.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | number of steps | T | algorithm 1 |
| step_size | length of one step | α | algorithm 1 |
| progress / 2 | weight of the wrong pixels | λ(t) = (t − 1) / 2T | 3.2 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from typing_extensions import override

from palpate.attacks._climb import LossAttack, check_steps
from palpate.attacks._gradient import Search
from palpate.attacks.pgd import Pgd
from palpate.registry import Number
from palpate.types import Images


@final
@dataclass(frozen=True)
class Segpgd(LossAttack):
    """PGD on cross-entropy that first works on the right pixels, then on all alike.

    On a classification a sample is one pixel.

    Attributes:
        steps: gradient steps.
        step_size: in units of the bounds; None for 2.5 · epsilon / steps.
        random_start: begin at a uniform draw from the ball; else at the clean image.
    """

    loss: Literal["segpgd"] = field(default="segpgd", kw_only=True)  # pyright: ignore
    steps: int = 20
    step_size: Number | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + 2

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        return Pgd(
            epsilon=self.epsilon,
            norm=self.norm,
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.random_start,
        )._run(search, seeds)
