"""σ-zero: the fewest changed values, by descent on a smooth count and an adaptive threshold.

Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo, "σ-zero: Gradient-based Optimization of ℓ0-norm
Adversarial Examples", arXiv 2402.01879, algorithm 1.

As there, and as in FMN (arXiv 2102.12827) and Sparse-RS (arXiv 2006.12834) "in feature space", the
norm counts input values, one per channel of a pixel; in grey images those are the pixels.

| code | meaning | symbol | source |
|---|---|---|---|
| change | perturbation, in shares of the width of the bounds | δ | algorithm 1 |
| _count_slope | derivative of Σ δ² / (δ² + σ), the smooth count | ∇ℓ̂₀ | algorithm 1 |
| _SOFTNESS | of the smooth count | σ | algorithm 1 |
| step_size | step from it to a tenth of it, on half a cosine | η | algorithm 1 |
| least | changes that are smaller are taken back | τ | algorithm 1 |
| _TURN | share of a step by which the threshold moves | t | algorithm 1 |
| _FINAL | tries to do with fewer of the best changes, which also parts equal ones | – | ours |

The loss of the paper is the margin; of masks and of several labels it is averaged over pixels and
labels. Once a sample is broken, the loss no longer acts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

import torch
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._loss import LossName, Objective
from palpate.attacks._nearest import CriterionAttack
from palpate.attacks._projection import shaped, size
from palpate.attacks._sparse import largest
from palpate.errors import ConfigError
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Classification, Images, MultiLabel

_SOFTNESS: Final = 1e-3
_TURN: Final = 0.01
_LAST: Final = 0.1  # share of the step that is left at the end, as in the released code
_TINY: Final = 1e-12
_FINAL: Final = 10


@final
@dataclass(frozen=True)
class SigmaZero(CriterionAttack):
    """Least ‖δ‖₀ that breaks a sample; values that are changed go as far as the range allows.

    Attributes:
        norm: "l0", the number of changed values; `epsilon` is such a number.
        steps: gradient steps.
        step_size: first step of the steepest value, in shares of the width of the bounds.
        threshold: change below which a value is taken back, to begin with; in the same shares.
        loss: what is climbed; None for "dice" on masks that are broken below a Dice, whose pixels
            do not cost alike, and else for "margin".
    """

    norm: Literal["l0"] = field(default="l0", kw_only=True)  # pyright: ignore
    steps: int = 1000
    step_size: Number = 1.0
    threshold: Number = 0.3
    loss: LossName | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)
        if self.epsilon is not None and not float(self.epsilon).is_integer():
            raise ConfigError(f"epsilon: expected a whole number of values, got {self.epsilon:g}")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: expected a share in [0, 1], got {self.threshold}")

    @override
    def check(self, target: Target) -> None:
        """Refuse a loss that the task does not have.

        Raises:
            ConfigError: with the losses that the task has.
        """
        super().check(target)
        self._aim(target).check(target.task)

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + _FINAL + 1

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        bounds, clean = search.target.bounds, search.images
        width = bounds.high - bounds.low
        search.objective = self._aim(search.target)
        least = torch.full_like(search.distance, self.threshold)
        images, change = clean, torch.zeros_like(clean)
        for step in range(self.steps):
            answer = search.ask(images)
            broken = search.judged(answer.logits) <= 0
            rest = torch.where(shaped(broken, clean), 0.0, -width * answer.gradient)
            slope = rest + _count_slope(change) / clean[0].numel()
            slope = slope / shaped(size(slope, "linf"), slope).clamp(min=_TINY)
            length = self.step_size * _share(step / self.steps)
            moved = (clean + width * (change - length * slope)).clamp(*bounds)
            change = (moved - clean) / width
            least = (least + torch.where(broken, _TURN, -_TURN) * length).clamp(0, 1)
            kept = change.abs() >= shaped(least, change)
            images = torch.where(kept, moved, clean)
            change = torch.where(kept, change, 0.0)
        search.look(images)
        self._prune(search)

    def _aim(self, target: Target) -> Objective:
        single = isinstance(target.task, Classification | MultiLabel)
        usual = "margin" if single or self.criterion == "pixel_success" else "dice"
        return Objective(self.loss or usual)

    def _prune(self, search: Search) -> None:
        """Keep ever fewer of the best changes, the largest ones; the nearest counts."""
        best, clean = search.best, search.images
        held = torch.zeros_like(search.distance)
        for _ in range(_FINAL):
            count = ((held + size(best - clean, "l0")) / 2).floor()
            fewer = largest(best, clean, count=shaped(count, clean))
            broken = search.judged(search.look(fewer).logits) <= 0
            held = torch.where(broken, held, count)
            best = torch.where(shaped(broken, best), fewer, best)


def _count_slope(change: Images) -> Images:
    return 2 * _SOFTNESS * change / (change**2 + _SOFTNESS) ** 2


def _share(progress: float) -> float:
    """1 at the beginning, `_LAST` at the end, half a cosine between."""
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * progress)) / 2
