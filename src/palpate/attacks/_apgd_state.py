"""Where an ascent with momentum is, and when its step halves.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", arXiv 2003.01690, section 3 and algorithm 1.

| code | meaning | symbol | section |
|---|---|---|---|
| step_size | starts at 2 ε, halved at checkpoints | η | 3.1 |
| _MOMENTUM | share of the new step, the rest is the last one | α = 0.75 | eq. 2 |
| _ENOUGH | share of steps that must have increased the loss | ρ = 0.75 | condition 1 |
| checkpoints | steps at which the step size is judged | w_j = ⌈p_j N⌉ | 3.1 |
| best | point of highest loss, where a halved step goes on from | x_max | algorithm 1 |
"""

import dataclasses
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from palpate.attacks._gradient import Answer
from palpate.attacks._projection import direction, project, shaped
from palpate.types import Bounds, Flags, Images, PerSample

_MOMENTUM: Final = 0.75
_ENOUGH: Final = 0.75


class Ball(NamedTuple):
    """What is allowed around the clean inputs.

    Attributes:
        norm: of the difference.
        epsilon: its largest value.
        bounds: legal range.
    """

    norm: str
    epsilon: float
    bounds: Bounds

    def inside(self, images: Images, clean: Images) -> Images:
        """Projected."""
        return project(images, clean, norm=self.norm, epsilon=self.epsilon, bounds=self.bounds)


@dataclass(frozen=True)
class State:
    """Per sample: where the ascent is, and what it needs to judge its step size."""

    clean: Images
    images: Images
    previous: Images
    tried: Images
    gradient: Images
    loss: PerSample
    best: Images
    best_gradient: Images
    best_loss: PerSample
    step_size: PerSample
    risen: Tensor
    judged_loss: PerSample
    was_halved: Flags

    @classmethod
    def at(cls, start: Images, clean: Images, answer: Answer, ball: Ball) -> "State":
        """At the start of an ascent."""
        return cls(
            clean=clean,
            images=start,
            previous=start,
            tried=start,
            gradient=answer.gradient,
            loss=answer.loss,
            best=start,
            best_gradient=answer.gradient,
            best_loss=answer.loss,
            step_size=torch.full_like(answer.loss, 2 * ball.epsilon),
            risen=torch.zeros_like(answer.loss, dtype=torch.long),
            judged_loss=answer.loss,
            was_halved=torch.ones_like(answer.loss, dtype=torch.bool),
        )

    @staticmethod
    def checkpoints(steps: int) -> list[int]:
        """Steps after which the step size is judged: 22 % first, gaps 3 % shorter, at least 6 %."""
        gap, shortest, shrink = (max(1, int(share * steps)) for share in (0.22, 0.06, 0.03))
        marks: list[int] = []
        mark = gap
        while mark <= steps:
            marks.append(mark)
            gap = max(gap - shrink, shortest)
            mark += gap
        return marks

    def only(self, stay: Flags) -> "State":
        """Of some of the samples."""
        fields = {f.name: getattr(self, f.name)[stay] for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **fields)

    def moved(self, ball: Ball, *, first: bool) -> Images:
        """Where the next step leads; the first has no momentum."""
        way = shaped(self.step_size, self.images) * direction(self.gradient, ball.norm)
        new = ball.inside(self.images + way, self.clean) - self.images
        if not first:
            new = _MOMENTUM * new + (1 - _MOMENTUM) * (self.images - self.previous)
        return ball.inside(self.images + new, self.clean)

    def then(self, moved: Images, answer: Answer) -> "State":
        """After a step."""
        higher = answer.loss > self.best_loss
        where = shaped(higher, moved)
        return dataclasses.replace(
            self,
            images=moved,
            previous=self.images,
            tried=moved,
            gradient=answer.gradient,
            loss=answer.loss,
            best=torch.where(where, moved, self.best),
            best_gradient=torch.where(where, answer.gradient, self.best_gradient),
            best_loss=torch.where(higher, answer.loss, self.best_loss),
            risen=self.risen + (answer.loss > self.loss),
        )

    def judged(self, since: int, ball: Ball) -> "State":  # noqa: ARG002 - of no use without sparsity
        """Halve the step and go back to the best point where one of the two conditions holds."""
        seldom = self.risen <= _ENOUGH * since
        stuck = ~self.was_halved & (self.judged_loss >= self.best_loss)
        halve = seldom | stuck
        where = shaped(halve, self.images)
        return dataclasses.replace(
            self,
            images=torch.where(where, self.best, self.images),
            gradient=torch.where(where, self.best_gradient, self.gradient),
            step_size=torch.where(halve, self.step_size / 2, self.step_size),
            risen=torch.zeros_like(self.risen),
            judged_loss=self.best_loss,
            was_halved=halve,
        )
