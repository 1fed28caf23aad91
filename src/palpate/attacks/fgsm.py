"""Fast gradient sign method: one step of the whole budget.

Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572,
section 4; the l2 form takes the normalised gradient instead of its sign. `update: blend` is the
step that the public code of Wang, Xu, "Susceptibility of Adversarial Attack on Medical Image
Segmentation Models", arXiv 2401.11224, takes in its place: it dims the image by ε and moves bright
pixels by up to 2 ε, which is the budget that it is held to.

| code | meaning | symbol | section |
|---|---|---|---|
| epsilon | budget | ε | 4 |
| search.gradient | gradient of the loss in the input | ∇x J(θ, x, y) | 4 |
| add | x + ε · sign(∇x J) | x̃ | 4 |
| blend | (1 − ε) · x + ε · sign(∇x J), on the range [0, 1] | x' | code of 2401.11224 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

from typing_extensions import override

from palpate import registry
from palpate.attacks._climb import LossAttack
from palpate.attacks._gradient import Search
from palpate.attacks._projection import blend, direction, project
from palpate.errors import ConfigError
from palpate.types import Images


@final
@dataclass(frozen=True)
class Fgsm(LossAttack):
    """x + ε · sign(∇x J), clipped to the bounds.

    Attributes:
        update: "add" the step, or "blend" it with the image as the U-Net study's code does.
    """

    update: Literal["add", "blend"] = "add"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update == "blend" and self.norm != "linf":
            raise ConfigError(f"update: expected 'add' for {self.norm}, got {self.update!r}")

    @property
    @override
    def passes(self) -> float:
        return 5.0

    @property
    @override
    def budget(self) -> float:
        return self.epsilon * (2 if self.update == "blend" else 1)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        clean, bounds = search.images, search.target.bounds
        # of the fields, only these two have no say in the gradient
        fields = registry.describe(replace(self, epsilon=1.0, update="add"))
        key = (tuple(seeds), registry.canonical(fields))
        way = direction(search.first(key), self.norm)
        if self.update == "blend":
            last = blend(clean, way, size=self.epsilon, bounds=bounds)
        else:
            moved = clean + self.epsilon * way
            last = project(moved, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)
        search.look(last)
        return last
