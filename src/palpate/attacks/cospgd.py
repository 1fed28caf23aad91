"""CosPGD: PGD whose pixels weigh as much as their prediction still agrees with the label.

Agnihotri, Jung, Keuper, "CosPGD: an efficient white-box adversarial attack for pixel-wise
prediction tasks", arXiv 2302.02213, section 3; the loss is in `_dense_loss`. The weight is a
constant for the gradient, as in the paper.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | number of steps | T | algorithm 1 |
| step_size | length of one step | α | algorithm 1 |
| cosine | similarity of the softmax with the one-hot label, per pixel | cossim | 3 |
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
class Cospgd(LossAttack):
    """PGD on cross-entropy weighted by the cosine of prediction and label.

    On a classification a sample is one pixel.

    Attributes:
        steps: gradient steps.
        step_size: in units of the bounds; None for 2.5 · epsilon / steps.
        random_start: begin at a uniform draw from the ball; else at the clean image.
    """

    loss: Literal["cospgd"] = field(default="cospgd", kw_only=True)  # pyright: ignore
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
