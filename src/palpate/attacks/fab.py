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
from palpate.attacks._gradient import Rows, Search, some
from palpate.attacks._loss import margin
from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._pairs import Leaving, packed, staying
from palpate.attacks._projection import shaped, size
from palpate.errors import ConfigError
from palpate.types import Flags, Images, Logits, PerSample

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
        self.pursue(search, room=len(search.images))

    def pursue(
        self, search: Search, *, room: int, enough: float = -1.0, leave_at_once: bool = False
    ) -> None:
        """Search among samples that are right when clean; see `_approach`.

        Args:
            search: whose `nearest` is the norm.
            room: most images at once where the classes of a sample come one after another.
            enough: a sample that is broken within this distance is led to no other class.
            leave_at_once: nor is it led on to the class that broke it.
        """

        def done(some_search: Search) -> Flags:
            return some_search.distance <= enough

        clean = search.look(search.images).logits
        classes = likeliest(clean, search.references, self.targets or _ALL)
        if self.targets == 0:
            self._towards(search, classes, None)
        else:
            for pairs in packed(search, classes.shape[1], room=room, done=done):
                part = search.part(pairs.samples)
                led = classes[pairs.samples, pairs.numbers].unsqueeze(1)
                leaving = pairs.leaving(part, done, at_once=leave_at_once)
                self._towards(part, led, leaving)
                pairs.settle(search, part, done)
        self._along_the_line(search, torch.nonzero(~done(search)).flatten(), clean)

    def _towards(self, search: Search, classes: Tensor, leaving: Leaving | None) -> None:
        bounds, images, rows = search.target.bounds, search.images, None
        for _ in range(self.steps):
            if leaving is not None:
                stay = ~some(leaving(), rows)
                if not bool(stay.all()):
                    rows, images = staying(rows, stay), images[stay]
                    if not len(images):
                        return
            clean = some(search.images, rows)
            found = contrasts(search, images, rows=rows, classes=some(classes, rows))
            gap, slope = nearest_plane(found, self.norm)
            at_clean = gap + (slope * (clean - images)).flatten(1).sum(dim=1)
            own, back = onto_plane(
                torch.cat([images, clean]),
                torch.cat([gap, at_clean]),
                torch.cat([slope, slope]),
                norm=self.norm,
                bounds=bounds,
            ).chunk(2)
            pull = self._pull(own, back)
            moved = (1 - pull) * (images + self.extrapolation * own)
            moved = moved + pull * (clean + self.extrapolation * back)
            moved = moved.clamp(bounds.low, bounds.high)
            broken = search.judged(search.look(moved, rows=rows).logits, rows) <= 0
            nearer = (1 - self.backward) * clean + self.backward * moved
            images = torch.where(shaped(broken, moved), nearer, moved)

    def _pull(self, own: Images, back: Images) -> Tensor:
        near, far = size(own, self.norm), size(back, self.norm)
        pull = (near / (near + far).clamp(min=1e-12)).clamp(max=self.bias)
        return shaped(pull, own)

    def _along_the_line(self, search: Search, rows: Rows, clean: Logits) -> None:
        """Secant steps between the best and the clean image; the frame keeps the nearest."""
        if not len(rows):
            return
        labels = search.references[rows]

        def ahead(images: Images) -> PerSample:
            return margin(search.look(images, rows=rows).logits, labels)

        right, wrong = search.images[rows], search.best[rows]
        lead, lost = margin(clean[rows], labels), ahead(wrong)
        for _ in range(_FINAL):
            share = (lead / (lead - lost).clamp(max=-1e-12)).clamp(0, 1)
            middle = right + shaped(share, right) * (wrong - right)
            value = ahead(middle)
            broken = shaped(value > 0, right)
            right, wrong = torch.where(broken, right, middle), torch.where(broken, middle, wrong)
            lead = torch.where(value > 0, lead, value)
            lost = torch.where(value > 0, value, lost)
