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

from palpate.attacks._climb import SteppedAttack
from palpate.attacks._gradient import Search
from palpate.attacks._projection import direction, project
from palpate.types import Images


@final
@dataclass(frozen=True)
class Bim(SteppedAttack):
    """x ← Clip(x + α · direction(∇x J)), `steps` times, from the clean image.

    Attributes:
        step_size: None for epsilon / steps, which just reaches the border.
    """

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
