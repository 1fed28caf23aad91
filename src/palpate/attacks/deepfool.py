"""DeepFool: walk to the nearest boundary of the linearised classifier, again and again.

Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural
networks", arXiv 1511.04599, algorithm 2 and its extension to other norms in section 3.3.

| code | meaning | symbol | section |
|---|---|---|---|
| onto_plane | step to the nearest linear boundary, inside the box | r_i | eq. 8 |
| total | sum of the steps | r̂ | algorithm 2 |
| overshoot | share by which the sum is lengthened to cross the boundary | η | 2 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._contrast import Contrasts, contrasts, likeliest, nearest_plane, onto_plane
from palpate.attacks._gradient import Search, put, some
from palpate.attacks._nearest import MinimalAttack
from palpate.errors import ConfigError


@final
@dataclass(frozen=True)
class Deepfool(MinimalAttack):
    """x ← x0 + (1 + η) Σ r_i until the decision changes.

    Attributes:
        steps: most steps.
        overshoot: share by which the perturbation is lengthened.
        candidates: classes to compare with, the likeliest on the clean input.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        if not self.overshoot >= 0 or self.candidates < 1:
            raise ConfigError(
                "expected an overshoot of 0 or more and candidates of 1 or more, got"
                f" {self.overshoot} and {self.candidates}"
            )

    @property
    @override
    def passes(self) -> float:
        return 10.0 * (1 + 2 * min(self.candidates, 3))  # most samples fall within ten steps

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        bounds, images, rows = search.target.bounds, search.images, None
        classes = likeliest(search.look(images).logits, search.references, self.candidates)
        total = torch.zeros_like(images)
        for _ in range(self.steps):
            found = contrasts(search, some(images, rows), rows=rows, classes=some(classes, rows))
            stay = some(search.score, rows) > 0
            if not bool(stay.all()):
                rows = torch.nonzero(stay).flatten() if rows is None else rows[stay]
                found = Contrasts(*(values[stay] for values in found))
                if not len(rows):
                    return
            gap, slope = nearest_plane(found, self.norm)
            here = some(images, rows)
            step = onto_plane(here, gap - 1e-4, slope, norm=self.norm, bounds=bounds)
            total = put(total, rows, some(total, rows) + step)
            moved = some(search.images, rows) + (1 + self.overshoot) * some(total, rows)
            images = put(images, rows, moved.clamp(bounds.low, bounds.high))
        search.look(some(images, rows), rows=rows)
