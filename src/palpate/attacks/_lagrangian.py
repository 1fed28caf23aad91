"""Augmented Lagrangian of many constraints y < 0, one for each pixel that has to turn wrong.

Rony et al., "Augmented Lagrangian Adversarial Attacks", arXiv 2011.11857 (ALMA); with a constraint
for each pixel, Rony, Pesquet, Ben Ayed, arXiv 2206.07179, section 4 (ALMA prox).

| code | meaning | symbol | source |
|---|---|---|---|
| penalty | μ y + μ ρ y² + ρ² y³ / 6 above 0, μ y / (1 − max(1, ρ) y) below | P, "P2" | ALMA |
| slope | its derivative in y, exact | P' | by hand |
| multiplier | Lagrange multiplier of each pixel, within `_MULTIPLIERS` | μ | ALMA |
| stiffness | penalty parameter of each pixel | ρ | ALMA |
| scale | weight of all constraints against the norm, within `_SCALES` | w | ALMA prox |
| _kept | constraints that count; the share that may fail grows with the steps | m | ALMA prox |
| _SMOOTH | of the multipliers | α | ALMA |
| _EVERY, _IMPROVED, _STIFFER | steps, factor and growth of the test for ρ | M, τ, γ | ALMA |
"""

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from palpate.types import PerSample

_SMOOTH: Final = 0.8
_EVERY: Final = 10
_IMPROVED: Final = 0.95
_STIFFER: Final = 2.0
_MULTIPLIERS: Final = (1e-12, 1.0)
_SCALES: Final = (0.1, 1.0)
_RESCALE: Final = 0.02


def penalty(constraint: Tensor, stiffness: Tensor, multiplier: Tensor) -> Tensor:
    """Penalty-Lagrangian function of constraints y < 0, elementwise; all of the same shape."""
    over, under = constraint.clamp(min=0), constraint.clamp(max=0)
    above = multiplier * over + multiplier * stiffness * over**2 + stiffness**2 * over**3 / 6
    below = multiplier * under / (1 - stiffness.clamp(min=1) * under)
    return torch.where(constraint >= 0, above, below)


def slope(constraint: Tensor, stiffness: Tensor, multiplier: Tensor) -> Tensor:
    """Derivative of `penalty` in the constraint; the multiplier itself at 0."""
    over, under = constraint.clamp(min=0), constraint.clamp(max=0)
    above = multiplier + 2 * multiplier * stiffness * over + stiffness**2 * over**2 / 2
    below = multiplier / (1 - stiffness.clamp(min=1) * under) ** 2
    return torch.where(constraint >= 0, above, below)


@dataclass
class Lagrangian:
    """What one search knows of its constraints; local to one call.

    Attributes:
        multiplier: (batch, constraints), float64.
        may_fail: share of the constraints that need not hold at the end.
        steps: of the search.
        stiffness: (batch, constraints).
        scale: (batch,).
    """

    multiplier: Tensor
    may_fail: float
    steps: int
    stiffness: Tensor = field(init=False)
    scale: PerSample = field(init=False)
    _before: Tensor | None = None
    _held: Tensor = field(init=False)
    _step: int = 0

    def __post_init__(self) -> None:
        self.stiffness = torch.full_like(self.multiplier, 0.01)
        self.scale = torch.ones_like(self.multiplier[:, 0])
        self._held = torch.zeros_like(self.multiplier, dtype=torch.bool)

    def __call__(self, constraints: Tensor, *, broken: Tensor) -> PerSample:
        """Take the step that these constraints ask for, and return what is to be decreased.

        Args:
            constraints: (batch, constraints), differentiable, below 0 where they hold.
            broken: (batch,) whether enough of them hold.
        """
        factor = torch.where(broken, 1 + _RESCALE, 1 - _RESCALE)
        self.scale = (self.scale / factor).clamp(*_SCALES)
        scaled = self.scale.unsqueeze(1) * constraints.double()
        now = scaled.detach()
        kept = self._kept(now)
        self._stiffen(now, kept)
        if self._step:
            wanted = slope(now, self.stiffness, self.multiplier)
            mixed = torch.lerp(wanted, self.multiplier, _SMOOTH).clamp(*_MULTIPLIERS)
            self.multiplier = torch.where(kept, mixed, self.multiplier)
        self._step += 1
        each = penalty(scaled, self.stiffness, self.multiplier)
        return (each * kept).sum(dim=1)

    def _kept(self, now: Tensor) -> Tensor:
        """Without the worst: none at the first step, all that may fail at the last."""
        share = self._step / max(1, self.steps - 1)
        count = int(self.may_fail * now.shape[1] * share)
        if not count:
            return torch.ones_like(now, dtype=torch.bool)
        return now <= now.topk(count + 1, dim=1).values[:, -1:]

    def _stiffen(self, now: Tensor, kept: Tensor) -> None:
        """Every few steps, double ρ where the pixel neither turned wrong nor came nearer to it."""
        self._held |= now < 0
        if self._before is None:
            self._before = now
        elif (self._step + 1) % _EVERY == 0:
            better = self._held | ~kept | (now <= _IMPROVED * self._before)
            self.stiffness = torch.where(better, self.stiffness, _STIFFER * self.stiffness)
            self._before = now
            self._held = torch.zeros_like(self._held)
