"""Projected gradient descent: many small steps, each projected back into the budget.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083,
section 2.1. The best iterate is returned, not the last; the record keeps both.

| code | meaning | symbol | section |
|---|---|---|---|
| epsilon | radius of the ball of allowed perturbations | ε, S | 2 |
| step_size | length of one step | α | 2.1 |
| steps | number of steps | T | 2.1 |
| project | projection on x + S | Π | 2.1 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from palpate.attacks._gradient import Search
from palpate.attacks._projection import direction, project
from palpate.attacks.base import Attack
from palpate.errors import ConfigError
from palpate.perturbation import draw_normal, draw_uniform
from palpate.registry import Number
from palpate.types import Images

_RESTART_STRIDE = 0x9E3779B97F4A7C15  # golden-ratio increment: distinct seeds for each restart
_SEED_MASK = (1 << 63) - 1


@final
@dataclass(frozen=True)
class Pgd(Attack):
    """x ← Π(x + α · direction(∇x J)), `steps` times, from one or more starts.

    Attributes:
        steps: gradient steps per start.
        step_size: in units of the bounds; None for 2.5 · epsilon / steps, which can reach the
            border from anywhere in the ball (Madry et al., section 5).
        random_start: begin at a uniform draw from the ball; else at the clean image.
        restarts: number of starts; the best iterate over all of them counts.
    """

    steps: int = 20
    step_size: Number | None = None
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1:
            raise ConfigError(
                f"expected steps and restarts of 1 or more, got {self.steps} and {self.restarts}"
            )
        if self.restarts > 1 and not self.random_start:
            raise ConfigError("expected random_start: true for several restarts, got false")
        if self.step_size is not None and not self.step_size > 0:
            raise ConfigError(f"step_size: expected more than 0, got {self.step_size}")

    @property
    @override
    def passes(self) -> float:
        return self.restarts * (3.0 * self.steps + 1) + 1

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images = search.images
        for restart in range(self.restarts):
            images = self._start(search, [_reseed(seed, restart) for seed in seeds])
            for _ in range(self.steps):
                images = self._step(search, images)
            search.look(images)
        return images

    def _step(self, search: Search, images: Images) -> Images:
        step_size = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        moved = images + step_size * direction(search.gradient(images), self.norm)
        return self._projected(search, moved)

    def _start(self, search: Search, seeds: Sequence[int]) -> Images:
        if not self.random_start:
            return search.images
        clean = search.images
        if self.norm == "linf":
            offset = self.epsilon * (2 * draw_uniform(clean, seeds) - 1)
        else:
            # uniform in the l2 ball: a normal direction, radius ~ U^(1/dimensions)
            radius = draw_uniform(clean[:, :1], [_reseed(s, -1) for s in seeds]).flatten(1)[:, 0]
            radius = self.epsilon * radius ** (1 / clean[0].numel())
            normal = direction(draw_normal(clean, seeds), "l2")
            offset = normal * radius.reshape(-1, *(1 for _ in clean.shape[1:]))
        return self._projected(search, clean + offset)

    def _projected(self, search: Search, images: Images) -> Images:
        return project(
            images,
            search.images,
            norm=self.norm,
            epsilon=self.epsilon,
            bounds=search.target.bounds,
        )


def _reseed(seed: int, restart: int) -> int:
    return (seed + restart * _RESTART_STRIDE) & _SEED_MASK
