"""Fast adaptive boundary: stay near the boundary, be drawn to the clean image, keep the nearest.

Croce, Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
arXiv 1907.02044, algorithm 1; its targeted form, arXiv 2003.01690, section 4.

| code | meaning | symbol | section |
|---|---|---|---|
| own | step from the iterate to the plane | δ(i) | 3.3 |
| back | step from the clean image to the same plane | δ_orig(i) | 3.3 |
| pull | weight of the clean image, at most `bias` | α | eq. 9 |
| extrapolation | share by which both steps are lengthened | η | 3.3 |
| backward | where a broken iterate is put between clean image and itself | β | 3.4 |
| targets | classes aimed at, the likeliest first | – | 2003.01690, 4 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._contrast import contrasts, likeliest, nearest_plane, onto_plane
from palpate.attacks._gradient import Search
from palpate.attacks._loss import margin
from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._projection import shaped, size
from palpate.errors import ConfigError
from palpate.types import Images

_ALL: Final = 10**6
_FINAL: Final = 3  # steps of the search along the line, section 3.6


@final
@dataclass(frozen=True)
class Fab(MinimalAttack):
    """Alternate projections on the linearised boundary with steps back to the clean image.

    Attributes:
        steps: iterations, for each target.
        targets: 0 to go to the nearest of all classes; else so many classes, likeliest first, one
            after another, which costs less per step; never more than there are.
        bias: largest weight of the clean image.
        extrapolation: 1 projects on the boundary, a little more crosses it.
        backward: share of the way that a broken iterate keeps.
    """

    steps: int = 100
    targets: int = 0
    bias: float = 0.1
    extrapolation: float = 1.05
    backward: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        if self.targets < 0:
            raise ConfigError(f"targets: expected 0 or more, got {self.targets}")

    @property
    @override
    def passes(self) -> float:
        return 4.0 * self.steps * max(1, self.targets)

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        clean = search.look(search.images).logits
        classes = likeliest(clean, search.references, self.targets or _ALL)
        groups = [classes] if self.targets == 0 else list(classes.split(1, dim=1))
        for group in groups:
            self._towards(search, group)
        self._along_the_line(search)

    def _towards(self, search: Search, classes: Tensor) -> None:
        clean, bounds, images = search.images, search.target.bounds, search.images
        for _ in range(self.steps):
            found = contrasts(search, images, rows=None, classes=classes)
            gap, slope = nearest_plane(found, self.norm)
            own = onto_plane(images, gap, slope, norm=self.norm, bounds=bounds)
            at_clean = gap + (slope * (clean - images)).flatten(1).sum(dim=1)
            back = onto_plane(clean, at_clean, slope, norm=self.norm, bounds=bounds)
            pull = self._pull(own, back)
            moved = (1 - pull) * (images + self.extrapolation * own)
            moved = moved + pull * (clean + self.extrapolation * back)
            moved = moved.clamp(bounds.low, bounds.high)
            broken = search.judged(search.look(moved).logits) <= 0
            nearer = (1 - self.backward) * clean + self.backward * moved
            images = torch.where(shaped(broken, moved), nearer, moved)

    def _pull(self, own: Images, back: Images) -> Tensor:
        near, far = size(own, self.norm), size(back, self.norm)
        pull = (near / (near + far).clamp(min=1e-12)).clamp(max=self.bias)
        return shaped(pull, own)

    def _along_the_line(self, search: Search) -> None:
        """Secant steps between the best and the clean image; the frame keeps the nearest."""
        right, wrong = search.images, search.best
        lead = margin(search.look(right).logits, search.references)
        lost = margin(search.look(wrong).logits, search.references)
        for _ in range(_FINAL):
            share = (lead / (lead - lost).clamp(max=-1e-12)).clamp(0, 1)
            middle = right + shaped(share, right) * (wrong - right)
            value = margin(search.look(middle).logits, search.references)
            broken = shaped(value > 0, right)
            right, wrong = torch.where(broken, right, middle), torch.where(broken, middle, wrong)
            lead = torch.where(value > 0, lead, value)
            lost = torch.where(value > 0, value, lost)
