"""Where a sparse ascent in the L1 ball is: how many entries a step changes, and how far it goes.

Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", arXiv
2103.01208, section 3.2 and algorithm 1. Small steps that spread over many entries and large ones
over few take turns: as long as the best point grows sparser, the step is long again.

| code | meaning | symbol | section |
|---|---|---|---|
| count | entries that a step changes | k | 3.2 |
| _FIRST | as a share of all at first | 0.2 d | algorithm 1 |
| _FEWER | of those that the best point changes | 1.5 | 3.2 |
| _SPARSER | share of the entries below which the best point has grown sparser | 0.95 | 3.2 |
| _SHORTER | divides the step size otherwise | 1.5 | 3.2 |
| _LEAST | smallest step size, as a share of the largest | 1/10 | 3.2 |
| _EVERY | share of the steps from one checkpoint to the next | 0.04 | algorithm 1 |
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._apgd_state import Ball, State
from palpate.attacks._gradient import Answer
from palpate.attacks._projection import shaped
from palpate.attacks._sparse import sparse_way
from palpate.types import Images

_FIRST: Final = 0.2
_FEWER: Final = 1.5
_SPARSER: Final = 0.95
_SHORTER: Final = 1.5
_LEAST: Final = 0.1
_EVERY: Final = 0.04


@dataclass(frozen=True)
class SparseState(State):
    """As `State`, with the number of entries of a step and of the last best point."""

    count: Tensor = field(kw_only=True)
    changed: Tensor = field(kw_only=True)

    @classmethod
    @override
    def at(cls, start: Images, clean: Images, answer: Answer, ball: Ball) -> "SparseState":
        entries = start[0].numel()
        count = torch.full_like(answer.loss, max(1, round(_FIRST * entries)), dtype=torch.long)
        plain = State.at(start, clean, answer, ball)
        fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
        fields["step_size"] = torch.full_like(answer.loss, ball.epsilon)
        return cls(**fields, count=count, changed=torch.full_like(count, entries))

    @staticmethod
    @override
    def checkpoints(steps: int) -> list[int]:
        gap = max(1, int(_EVERY * steps))
        return list(range(gap, steps + 1, gap))

    @override
    def moved(self, ball: Ball, *, first: bool) -> Images:
        way = sparse_way(self.gradient, self.images, count=self.count, bounds=ball.bounds)
        return ball.inside(self.images + shaped(self.step_size, way) * way, self.clean)

    @override
    def judged(self, since: int, ball: Ball) -> "SparseState":
        changed = (self.best != self.clean).flatten(1).sum(dim=1)
        sparser = changed < _SPARSER * self.changed
        shorter = (self.step_size / _SHORTER).clamp(min=_LEAST * ball.epsilon)
        where = shaped(sparser, self.images)
        return dataclasses.replace(
            self,
            images=torch.where(where, self.best, self.images),
            gradient=torch.where(where, self.best_gradient, self.gradient),
            step_size=torch.where(sparser, ball.epsilon, shorter),
            count=(changed / _FEWER).long().clamp(min=1),
            changed=changed,
        )
