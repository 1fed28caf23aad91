"""Projected gradient descent: many small steps, each projected back into the budget.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083,
section 2.1. The best iterate is returned, not the last; the record keeps both. In L1 the steps are
sparse and the projection minds the legal range (see `_sparse`).

| code | meaning | symbol | section |
|---|---|---|---|
| epsilon | radius of the ball of allowed perturbations | ε, S | 2 |
| step_size | length of one step | α | 2.1 |
| steps | number of steps | T | 2.1 |
| project | projection on x + S | Π | 2.1 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from typing_extensions import override

from palpate.attacks._climb import RefinedAttack
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._projection import blend, direction, project
from palpate.attacks._sparse import entries, sparse_way
from palpate.attacks._start import reseed, uniform_start
from palpate.errors import ConfigError
from palpate.registry import Number
from palpate.types import Bounds, Flags, Images


@final
@dataclass(frozen=True)
class Pgd(RefinedAttack):
    """x ← Π(x + α · direction(∇x J)), `steps` times, from one or more starts.

    Attributes:
        norm: "linf", "l2" or "l1".
        steps: gradient steps per start.
        step_size: in units of the bounds; None for 2.5 · epsilon / steps, which can reach the
            border from anywhere in the ball (Madry et al., section 5).
        random_start: begin at a uniform draw from the ball; else at the clean image.
        restarts: number of starts; the best iterate over all of them counts.
        update: "add" each step, or "blend" it with the image (see fgsm); projected either way.
        stop_at_success: a sample whose score has reached 0 leaves the batch. The robust accuracy
            is exactly the same and the work less, but such a sample keeps its first broken iterate
            and not its worst, so AUC and calibration under attack look better than they are.
    """

    version = 2

    # wider than in the base, whose other attacks have no sparse step
    norm: Literal["linf", "l2", "l1"] = field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="linf", kw_only=True
    )
    steps: int = 20
    step_size: Number | None = None
    random_start: bool = True
    restarts: int = 1
    update: Literal["add", "blend"] = "add"
    stop_at_success: bool = False

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
        if self.update == "blend" and self.norm != "linf":
            raise ConfigError(f"update: expected 'add' for {self.norm}, got {self.update!r}")

    @property
    @override
    def passes(self) -> float:
        return self.restarts * (3.0 * self.steps + 1) + 1

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images = search.images
        for restart in range(self.restarts):
            rows = search.standing() if restart and self.stop_at_success else None
            start = self._start(search, [reseed(seed, restart) for seed in seeds])
            images = put(images, rows, self._climb(search, some(start, rows), rows))
        return images

    def _climb(self, search: Search, images: Images, rows: Rows | None) -> Images:
        """The iterates at which the samples stopped, of those in `rows`."""
        bounds, stopped = search.target.bounds, images
        clean, inside = some(search.images, rows), None
        for step in range(self.steps):
            gradient = search.gradient(images, rows=rows, progress=step / self.steps)
            if self.stop_at_success:
                stay = some(search.score, rows) > 0
                if not bool(stay.all()):
                    stopped = put(stopped, inside, images)
                    inside = _left(inside, stay)
                    rows = _left(rows, stay)
                    clean, images, gradient = clean[stay], images[stay], gradient[stay]
                    if not len(images):
                        return stopped
            images = self._step(images, clean, gradient, bounds, share=step / self.steps)
        search.look(images, rows=rows)
        return put(stopped, inside, images)

    def _step(
        self, images: Images, clean: Images, gradient: Images, bounds: Bounds, *, share: float
    ) -> Images:
        length = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        if self.norm == "l1":
            size = images[0].numel()
            count = entries(size, share=share, epsilon=self.epsilon, bounds=bounds)
            way = sparse_way(gradient, images, count=count, bounds=bounds)
        else:
            way = direction(gradient, self.norm)
        if self.update == "blend":
            moved = blend(images, way, size=length, bounds=bounds)
        else:
            moved = way.mul_(length).add_(images)  # in place, as in `project`
        return project(moved, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)

    def _start(self, search: Search, seeds: Sequence[int]) -> Images:
        if not self.random_start:
            return search.images
        return uniform_start(
            search.images,
            seeds,
            norm=self.norm,
            epsilon=self.epsilon,
            bounds=search.target.bounds,
        )


def _left(rows: Rows | None, stay: Flags) -> Rows:
    return torch.nonzero(stay).flatten() if rows is None else rows[stay]
