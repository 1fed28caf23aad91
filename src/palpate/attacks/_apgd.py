"""Ascent with momentum whose step size halves itself, as APGD, SEA and the ensemble use it.

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from palpate.attacks._gradient import Answer, Measure, Rows, Search, put, some
from palpate.attacks._pairs import Leaving, broken, staying
from palpate.attacks._projection import direction, project, shaped
from palpate.types import Bounds, Flags, Images, PerSample

_MOMENTUM: Final = 0.75
_ENOUGH: Final = 0.75
Measuring = Callable[[Rows | None, float], Measure]


@dataclass(frozen=True)
class Ascent:
    """How far and how long.

    Attributes:
        norm: "linf" or "l2".
        epsilon: radius of the ball around the clean inputs.
        steps: gradient steps.
        stop_at_success: a sample whose score has reached 0 leaves.
    """

    norm: str
    epsilon: float
    steps: int
    stop_at_success: bool = False

    def run(
        self,
        search: Search,
        start: Images,
        *,
        measuring: Measuring | None = None,
        leaving: Leaving | None = None,
    ) -> Images:
        """Climb from `start`; the iterates at which the samples stopped.

        Args:
            search: remembers the best iterates.
            start: within the ball and the bounds.
            measuring: gives another loss than the search's for some rows (None for all) and a
                share of the steps.
            leaving: which samples of the search leave; None for those that `stop_at_success` says.
        """
        if leaving is None and self.stop_at_success:
            leaving = partial(broken, search)
        ask = _asking(search, measuring)
        marks, rows, stopped = checkpoints(self.steps), None, start
        state = _State.at(start, search.images, ask(start, None, 0.0), 2 * self.epsilon)
        last_mark = 0
        for step in range(1, self.steps + 1):
            if leaving is not None:
                stay = ~some(leaving(), rows)
                if not bool(stay.all()):
                    stopped = put(stopped, rows, state.images)
                    rows = staying(rows, stay)
                    state = state.only(stay)
                    if not len(rows):
                        return stopped
            moved = self._moved(state, search.target.bounds, momentum=step > 1)
            state = state.then(moved, ask(moved, rows, step / self.steps))
            if step in marks:
                state = state.judged(step - last_mark)
                last_mark = step
        # a checkpoint may have gone back to the best point: the last one tried is the last
        return put(stopped, rows, state.tried)

    def _moved(self, state: "_State", bounds: Bounds, *, momentum: bool) -> Images:
        def inside(images: Images) -> Images:
            return project(images, state.clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)

        way = shaped(state.step_size, state.images) * direction(state.gradient, self.norm)
        new = inside(state.images + way) - state.images
        if momentum:
            new = _MOMENTUM * new + (1 - _MOMENTUM) * (state.images - state.previous)
        return inside(state.images + new)


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


@dataclass(frozen=True)
class _State:
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
    def at(cls, start: Images, clean: Images, answer: Answer, step_size: float) -> "_State":
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
            step_size=torch.full_like(answer.loss, step_size),
            risen=torch.zeros_like(answer.loss, dtype=torch.long),
            judged_loss=answer.loss,
            was_halved=torch.ones_like(answer.loss, dtype=torch.bool),
        )

    def only(self, stay: Flags) -> "_State":
        fields = {f.name: getattr(self, f.name)[stay] for f in dataclasses.fields(self)}
        return _State(**fields)

    def then(self, moved: Images, answer: Answer) -> "_State":
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

    def judged(self, since: int) -> "_State":
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


def _asking(
    search: Search, measuring: Measuring | None
) -> Callable[[Images, Rows | None, float], Answer]:
    def ask(images: Images, rows: Rows | None, progress: float) -> Answer:
        measure = None if measuring is None else measuring(rows, progress)
        return search.ask(images, rows=rows, progress=progress, measure=measure)

    return ask
