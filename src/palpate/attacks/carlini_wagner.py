"""Carlini and Wagner's L2 attack: the smallest change, by a penalty whose weight is searched.

Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks", arXiv 1608.04644,
sections V and VI-A.

| code | meaning | symbol | section |
|---|---|---|---|
| variable | free variable, image = ½ (tanh w + 1) of the range | w | V-B |
| weight | weight of the penalty, by bisection | c | V-A |
| margin | largest other less true logit; its negative part is the penalty, κ = 0 | f6 | V-A |
| step_size | of Adam | – | VI-A |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._loss import margin
from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._projection import shaped
from palpate.errors import ConfigError
from palpate.types import Bounds, Images, PerSample

_DECAYS: Final = (0.9, 0.999)  # Kingma, Ba, "Adam", arXiv 1412.6980
_EDGE: Final = 0.999999  # tanh⁻¹ is infinite at the bounds


@final
@dataclass(frozen=True)
class CarliniWagner(MinimalAttack):
    """Minimise ‖δ‖² + c · max(z_y − max z_i, 0) with Adam in tanh space.

    Attributes:
        steps: of Adam, for each weight.
        searches: weights tried: tenfold steps until one breaks and one does not, then bisection.
        step_size: of Adam, in tanh space.
        first_weight: weight of the penalty to begin with.
    """

    norm: Literal["l2"] = field(default="l2", kw_only=True)  # pyright: ignore
    steps: int = 200
    searches: int = 9
    step_size: float = 0.01
    first_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)
        if self.searches < 1 or not self.first_weight > 0:
            raise ConfigError(
                "expected searches of 1 or more and a positive first_weight, got"
                f" {self.searches} and {self.first_weight}"
            )

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps * self.searches

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        weight = torch.full_like(search.score, self.first_weight)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        for _ in range(self.searches):
            broken = self._descend(search, weight)
            low = torch.where(broken, low, weight)
            high = torch.where(broken, weight, high)
            weight = torch.where(torch.isinf(high), low * 10, (low + high) / 2)
            weight = torch.where(low == 0, high / 10, weight)

    def _descend(self, search: Search, weight: PerSample) -> Tensor:
        """Adam from the clean image; which samples were broken on the way."""
        clean, bounds = search.images, search.target.bounds
        start = _variable(clean, bounds)
        variable, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
        broken = torch.zeros_like(weight, dtype=torch.bool)
        for step in range(1, self.steps + 1):
            slope = variable.tanh()
            images = _images(slope, bounds)
            answer = search.ask(images, measure=lambda z: margin(z, search.references))
            broken |= answer.loss > 0
            hinge = shaped(weight * (answer.loss < 0), images)
            pulled = 2 * (images - clean) - hinge * answer.gradient
            inner = pulled * (1 - slope**2) * ((bounds.high - bounds.low) / 2)
            first = _DECAYS[0] * first + (1 - _DECAYS[0]) * inner
            second = _DECAYS[1] * second + (1 - _DECAYS[1]) * inner**2
            mean, spread = first / (1 - _DECAYS[0] ** step), second / (1 - _DECAYS[1] ** step)
            variable = variable - self.step_size * mean / (spread.sqrt() + 1e-8)
        images = _images(variable.tanh(), bounds)
        logits = search.look(images).logits
        return broken | (margin(logits, search.references) > 0)


def _variable(images: Images, bounds: Bounds) -> Images:
    unit = 2 * (images - bounds.low) / (bounds.high - bounds.low) - 1
    return torch.atanh(unit * _EDGE)


def _images(slope: Images, bounds: Bounds) -> Images:
    unit = (slope / _EDGE + 1) / 2
    return (unit * (bounds.high - bounds.low) + bounds.low).clamp(bounds.low, bounds.high)
