"""Basic iterative method: FGSM in small steps from the clean image.

Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", arXiv 1607.02533,
section 2.2. It is PGD without a random start; kept under its own name because audits ask for it.

| code | meaning | symbol | section |
|---|---|---|---|
| step_size | length of one step | α | 2.2 |
| steps | number of steps | – | 2.2 |
| project | clip to the neighbourhood | Clip_{X,ε} | 2.2 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from palpate.attacks._climb import LossAttack, check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._projection import direction, project
from palpate.registry import Number
from palpate.types import Images


@final
@dataclass(frozen=True)
class Bim(LossAttack):
    """x ← Clip(x + α · direction(∇x J)), `steps` times, from the clean image.

    Attributes:
        steps: gradient steps.
        step_size: in units of the bounds; None for epsilon / steps, which just reaches the border.
    """

    steps: int = 10
    step_size: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + 2

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images, bounds = search.images, search.target.bounds
        length = self.epsilon / self.steps if self.step_size is None else self.step_size
        for step in range(self.steps):
            gradient = search.gradient(images, progress=step / self.steps)
            moved = images + length * direction(gradient, self.norm)
            images = project(
                moved, search.images, norm=self.norm, epsilon=self.epsilon, bounds=bounds
            )
        search.look(images)
        return images
