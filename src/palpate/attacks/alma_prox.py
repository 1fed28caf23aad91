"""ALMA prox: the smallest L∞ change that turns nearly all pixels of a mask wrong.

Rony, Pesquet, Ben Ayed, "Proximal Splitting Adversarial Attacks for Semantic Segmentation", arXiv
2206.07179. Derived from the paper; the derivative of the penalty in the released code differs from
that of its own formula, here it is exact.

| code | meaning | symbol | source |
|---|---|---|---|
| change | perturbation, in shares of the width of the bounds | δ | section 3 |
| _Lead | difference of logits ratio, below 0 where a pixel is wrong | DLR⁺ | section 4 |
| pixels | share of the pixels that have to be wrong | ν | section 4 |
| Lagrangian | penalty, multipliers, constraint scale and mask | P, μ, ρ, w, m | section 4 |
| prox_linf | proximity operator of λ times the norm, inside the box | prox | section 4 |
| square | moving mean of squared gradients; its root is the metric | H | section 4 (VMFB) |
| length | step, from `step_size` to a tenth of it once a sample is broken | λ | section 5 |
| _REACHES | way that the longer steps of further runs go, for samples not yet broken | – | ours |
| _FINAL | clippings of the best change at smaller values | – | ours |

DLR⁺ divides by the gap of the first and the third logit, so it needs three classes; that gap is
held constant in the gradient, since the ratio of logits z, 0, −z does not change with z. With two,
and for planes that do not exclude each other, the lead is divided by its mean over the pixels of
the clean image, which keeps the attack indifferent to the scale of the logits as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._lagrangian import Lagrangian
from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._places import leads
from palpate.attacks._projection import shaped, size
from palpate.attacks._prox import prox_linf
from palpate.attacks._success import Success
from palpate.registry import Number
from palpate.types import Logits, PerSample, Prediction

_SMOOTH: Final = 0.8  # α of the metric, section 5
_LAST: Final = 0.1  # share of the step that is left at the end, section 5
_TIE: Final = 1e-4  # a lead of 0 is no decision
_TINY: Final = 1e-12
_FINAL: Final = 8
_REACHES: Final = (2.0, 8.0)


@final
@dataclass(frozen=True)
class AlmaProx(MinimalAttack):
    """Least ‖δ‖∞ that turns a share `pixels` wrong, by variable metric forward-backward steps.

    On a classification a sample is one pixel.

    Attributes:
        steps: gradient steps.
        pixels: share of the pixels that have to be wrong, of all planes where classes do not
            exclude each other.
        step_size: first step, in shares of the width of the bounds.
    """

    norm: Literal["linf"] = field(default="linf", kw_only=True)  # pyright: ignore
    steps: int = 500
    pixels: Number = 0.99
    step_size: Number = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)
        _ = self.success  # refuses a share that is none

    @property
    @override
    def success(self) -> Success:
        return Success("pixel_success", self.pixels)

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + _FINAL + 2

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        self._descend(search, self.step_size)
        for reach in _REACHES:
            rows, longer = search.standing(), reach / self.steps
            if len(rows) and longer > self.step_size:
                part = search.part(rows)
                self._descend(part, longer)
                search.join(part, rows)

    def _descend(self, search: Search, first: float) -> None:
        bounds, clean = search.target.bounds, search.images
        width = bounds.high - bounds.low
        low, high = (bounds.low - clean) / width, (bounds.high - clean) / width
        lead = _Lead(search)
        lagrangian = lead.lagrangian(self.steps, may_fail=1 - self.pixels)

        def measure(logits: Logits) -> PerSample:
            broken = search.judged(logits) <= 0
            return lagrangian(lead.of(logits), broken=broken).to(logits.dtype)

        change, square = torch.zeros_like(clean), torch.zeros_like(clean)
        found = torch.full_like(search.score, self.steps // 2)
        for step in range(self.steps):
            images = (clean + width * change).clamp(*bounds)
            gradient = width * search.ask(images, measure=measure).gradient
            newly = torch.isfinite(search.distance) & (found > step)
            found = torch.where(newly, torch.full_like(found, step), found)
            length = first * self._share(step, found)
            square = _SMOOTH * square + (1 - _SMOOTH) * gradient**2
            metric = (square / (1 - _SMOOTH ** (step + 1))).sqrt().clamp(min=1e-8)
            moved = change - shaped(length, change) * gradient / metric
            change = prox_linf(moved, metric=metric, weight=length, low=low, high=high)
        search.look((clean + width * change).clamp(*bounds))
        self._clip(search)

    def _share(self, step: int, found: PerSample) -> PerSample:
        """1 until a sample is broken, or half of the steps are over; then down to `_LAST`."""
        share = ((step - found) / (self.steps - found)).clamp(min=0)
        return 1 / (1 + share * (1 / _LAST - 1))

    def _clip(self, search: Search) -> None:
        """Clip the best change at ever closer values between 0 and its norm; the nearest counts."""
        clean, change = search.images, search.best - search.images
        held = torch.zeros_like(search.distance)
        for _ in range(_FINAL):
            best = size(change, "linf")
            middle = shaped((held + best) / 2, change)
            clipped = change.clamp(-middle, middle)
            logits = search.look((clean + clipped).clamp(*search.target.bounds)).logits
            broken = search.judged(logits) <= 0
            held = torch.where(broken, held, (held + best) / 2)
            change = torch.where(shaped(broken, change), clipped, change)


class _Lead:
    """By how much the true class leads at each pixel, on a scale of its own."""

    def __init__(self, search: Search) -> None:
        clean = search.look(search.images).logits
        count, classes = clean.shape[:2]
        self._exclusive = Prediction(clean, search.target.task).exclusive
        self._references = search.references
        self._shape = (count, -1) if self._exclusive else (count, classes, -1)
        self._ratio = self._exclusive and classes > 2
        self._unit = torch.ones_like(clean[:1, :1].flatten())
        raw = self._raw(clean)
        if not self._ratio:
            self._unit = raw.abs().mean(dim=-1, keepdim=True).clamp(min=_TINY)

    def lagrangian(self, steps: int, *, may_fail: float) -> Lagrangian:
        """With one multiplier of 1 per pixel."""
        ones = torch.ones_like(self._references, dtype=torch.float64)
        return Lagrangian(ones.reshape(len(ones), -1), may_fail, steps)

    def of(self, logits: Logits) -> Tensor:
        """(batch, pixels), differentiable, below 0 where a pixel is wrong."""
        return (self._raw(logits) / self._unit).flatten(1) + _TIE

    def _raw(self, logits: Logits) -> Tensor:
        lead = leads(logits, self._references, exclusive=self._exclusive).reshape(self._shape)
        if self._ratio:
            top = logits.detach().reshape(*logits.shape[:2], -1).topk(3, dim=1).values
            lead = lead / (top[:, 0] - top[:, 2]).clamp(min=_TINY)
        return lead
