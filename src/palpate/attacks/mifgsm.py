"""Momentum iterative FGSM: steps along an average of the gradients, for transfer above all.

Dong et al., "Boosting Adversarial Attacks with Momentum", arXiv 1710.06081, algorithm 1.

| code | meaning | symbol | section |
|---|---|---|---|
| decay | share of the old momentum that is kept | μ | 3.1 |
| momentum | decayed sum of gradients, each of mean size 1 | g_t | eq. 6 |
| step_size | length of one step, ε / T in the paper | α | 3.1 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from typing_extensions import override

from palpate.attacks._climb import SteppedAttack
from palpate.attacks._gradient import Search
from palpate.attacks._projection import direction, project, shaped
from palpate.errors import ConfigError
from palpate.types import Images


@final
@dataclass(frozen=True)
class Mifgsm(SteppedAttack):
    """g ← μ g + ∇x J / mean|∇x J|; x ← Clip(x + α · direction(g)), from the clean image.

    Attributes:
        step_size: None for epsilon / steps.
        decay: 0 for no momentum, 1 for a plain sum.
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise ConfigError(f"decay: expected 0 or more, got {self.decay}")

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images, bounds = search.images, search.target.bounds
        momentum = torch.zeros_like(images)
        length = self.epsilon / self.steps if self.step_size is None else self.step_size
        for step in range(self.steps):
            gradient = search.gradient(images, progress=step / self.steps)
            # the paper divides by the l1 norm; the mean gives the same direction, numbers near 1
            scale = gradient.abs().flatten(1).mean(dim=1).clamp(min=1e-30)
            momentum = self.decay * momentum + gradient / shaped(scale, images)
            moved = images + length * direction(momentum, self.norm)
            images = project(
                moved, search.images, norm=self.norm, epsilon=self.epsilon, bounds=bounds
            )
        search.look(images)
        return images
