"""Carlini and Wagner's L2 attack: the smallest change, by a penalty whose weight is searched.

Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks", arXiv 1608.04644,
sections V and VI-A. Of the three ways to stay in the box in section V-B the iterates are projected:
with tanh in their place as in the released code, pixels at a bound hardly move, and medical images
have black backgrounds.

Masks and sets of labels are broken when enough of their places are wrong (see `_places`). The
penalty is then the sum of the leads of the cheapest places that break the sample together, chosen
anew at each step; the others do not count, so that the image changes nowhere for their sake.
Which are cheapest is told by their distance for labels and by their lead for pixels, as if all had
the same slope.

| code | meaning | symbol | section |
|---|---|---|---|
| change | perturbation, in shares of the width of the bounds | δ | V |
| weight | weight of the penalty, by bisection | c | V-A |
| _Excess | Σ max(lead, 0); of one class the largest other less the true logit, κ = 0 | f6 | V-A |
| step_size | of Adam | – | VI-A |
| _REACH, _END | how far all steps go, and when they shorten | – | ours |
| _SLACK | by how far several places are pushed over, since all have to be at once | κ | V-A |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._contrast import dual_size, flips
from palpate.attacks._gradient import Search
from palpate.attacks._nearest import CriterionAttack
from palpate.attacks._places import cheapest, leads
from palpate.attacks._projection import shaped
from palpate.attacks._success import Success
from palpate.errors import ConfigError
from palpate.types import Flags, Logits, MultiLabel, PerSample, Prediction

_DECAYS: Final = (0.9, 0.999)  # Kingma, Ba, "Adam", arXiv 1412.6980
_REACH: Final = 20.0  # of all steps together, in root mean squares of the best change so far
_END: Final = 0.3  # share of the steps over which they shorten to nothing
_SLACK: Final = 0.01  # of the mean lead of the places that have to turn


@final
@dataclass(frozen=True)
class CarliniWagner(CriterionAttack):
    """Minimise ‖δ‖² + c · Σ max(z_y − max z_i, 0) with Adam, inside the bounds.

    Attributes:
        steps: of Adam, for each weight.
        searches: weights tried: tenfold steps until one breaks and one does not, then bisection.
        step_size: longest step of Adam, in shares of the width of the bounds; once a broken input
            is known, steps are no longer than its distance asks for.
        first_weight: weight of the penalty to begin with.
    """

    version = 2

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
        excess = _Excess(search, self.success)
        weight = torch.full_like(search.score, self.first_weight)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        for _ in range(self.searches):
            broken = self._descend(search, excess, weight)
            low = torch.where(broken, low, weight)
            high = torch.where(broken, weight, high)
            weight = torch.where(torch.isinf(high), low * 10, (low + high) / 2)
            weight = torch.where(low == 0, high / 10, weight)

    def _descend(self, search: Search, excess: "_Excess", weight: PerSample) -> Flags:
        """Adam from the clean image; which samples were broken on the way."""
        bounds, images = search.target.bounds, search.images
        width = bounds.high - bounds.low
        length = width * shaped(self._length(search), images)
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        broken = torch.zeros_like(weight, dtype=torch.bool)
        for step in range(1, self.steps + 1):
            answer = search.ask(images, measure=excess)
            broken |= search.judged(answer.logits) <= 0
            change = (images - search.images) / width
            pulled = 2 * change + shaped(weight, images) * width * answer.gradient
            first = _DECAYS[0] * first + (1 - _DECAYS[0]) * pulled
            second = _DECAYS[1] * second + (1 - _DECAYS[1]) * pulled**2
            mean, spread = first / (1 - _DECAYS[0] ** step), second / (1 - _DECAYS[1] ** step)
            rest = min(1.0, (self.steps - step + 1) / (_END * self.steps))
            moved = images - rest * length * mean / (spread.sqrt() + 1e-8)
            images = moved.clamp(bounds.low, bounds.high)
        return broken | (search.judged(search.look(images).logits) <= 0)

    def _length(self, search: Search) -> PerSample:
        """Steps in shares of the width; no more than resolves the best change so far."""
        bounds = search.target.bounds
        root = math.sqrt(search.images[0].numel()) * (bounds.high - bounds.low)
        return (_REACH / self.steps * search.distance / root).clamp(max=self.step_size)


class _Excess:
    """What is left of the leads of the places that have to turn, per sample."""

    def __init__(self, search: Search, success: Success) -> None:
        self._task, self._references = search.target.task, search.references
        self._success = success
        self._unit = torch.ones(())
        if isinstance(self._task, MultiLabel):  # a few slopes, so that distances can be compared
            found = flips(search, search.images, rows=None)
            self._unit, clean = dual_size(found.slopes, "l2"), found.logits
        else:
            clean = search.look(search.images).logits
        lead, chosen = self._places(clean)
        count = chosen.reshape(len(chosen), -1).sum(dim=1)
        far = _summed(lead / self._unit, chosen) / count
        slack = torch.where(count > 1, _SLACK * far, torch.zeros_like(far))
        self._slack = slack.reshape(-1, *(1 for _ in lead.shape[1:])) * self._unit

    def __call__(self, logits: Logits) -> PerSample:
        """(batch,), differentiable, 0 where nothing is left."""
        lead, chosen = self._places(logits)
        return _summed(lead + self._slack, chosen)

    def _places(self, logits: Logits) -> tuple[Tensor, Tensor]:
        """Leads, and which of them have to be below 0."""
        prediction = Prediction(logits.detach(), self._task)
        lead = leads(logits, self._references, exclusive=prediction.exclusive)
        distance = lead.detach() / self._unit
        return lead, cheapest(distance, prediction, self._references, self._success)


def _summed(leads: Tensor, chosen: Tensor) -> PerSample:
    left = leads.clamp(min=0) * chosen
    return left.reshape(len(left), -1).sum(dim=1)
