"""Ascent whose step size finds itself, as APGD, SEA and the ensemble use it.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", arXiv 2003.01690, algorithm 1. What a step is, and when its size changes,
is in `_apgd_state`; for L1 in `_apgd_sparse`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from palpate.attacks._apgd_sparse import SparseState
from palpate.attacks._apgd_state import Ball, State
from palpate.attacks._gradient import Answer, Measure, Rows, Search, put, some
from palpate.attacks._pairs import Leaving, broken, staying
from palpate.types import Images

Measuring = Callable[[Rows | None, float], Measure]


@dataclass(frozen=True)
class Ascent:
    """How far and how long.

    Attributes:
        norm: "linf", "l2" or "l1".
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
        ball = Ball(self.norm, self.epsilon, search.target.bounds)
        kind = SparseState if self.norm == "l1" else State
        state = kind.at(start, search.images, ask(start, None, 0.0), ball)
        marks, rows, stopped = kind.checkpoints(self.steps), None, start
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
            moved = state.moved(ball, first=step == 1)
            state = state.then(moved, ask(moved, rows, step / self.steps))
            if step in marks:
                state = state.judged(step - last_mark, ball)
                last_mark = step
        # a checkpoint may have gone back to the best point: the last one tried is the last
        return put(stopped, rows, state.tried)


def _asking(
    search: Search, measuring: Measuring | None
) -> Callable[[Images, Rows | None, float], Answer]:
    def ask(images: Images, rows: Rows | None, progress: float) -> Answer:
        measure = None if measuring is None else measuring(rows, progress)
        return search.ask(images, rows=rows, progress=progress, measure=measure)

    return ask
