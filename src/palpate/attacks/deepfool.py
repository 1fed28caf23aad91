"""DeepFool: walk to the nearest boundary of the linearised classifier, again and again.

Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural
networks", arXiv 1511.04599, algorithm 2 and its extension to other norms in section 3.3. Labels
that do not exclude each other are a hyperplane each, as in Song et al., "Multi-label Adversarial
Perturbations", arXiv 1901.00546; the nearest of them are crossed together, as many as it takes.

| code | meaning | symbol | section |
|---|---|---|---|
| onto_plane | step to the nearest linear boundary, inside the box | r_i | eq. 8 |
| total | sum of the steps | r̂ | algorithm 2 |
| common_plane | sum of the planes of several labels that is as far as all of them | – | ours |
| overshoot | share by which the sum is lengthened to cross the boundary | η | 2 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._contrast import (
    Contrasts,
    common_plane,
    contrasts,
    dual_size,
    flips,
    likeliest,
    nearest_plane,
    onto_plane,
)
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._nearest import CriterionAttack
from palpate.attacks._places import cheapest
from palpate.errors import ConfigError
from palpate.types import Classification, Images, MultiLabel, Prediction

_BEYOND: Final = 1e-4  # a logit on the boundary is no decision


@final
@dataclass(frozen=True)
class Deepfool(CriterionAttack):
    """x ← x0 + (1 + η) Σ r_i until the decision changes, or enough of several labels are wrong.

    Attributes:
        steps: most steps.
        overshoot: share by which the perturbation is lengthened.
        candidates: classes to compare with, the likeliest on the clean input; of several labels
            each is looked at.
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

    @property
    @override
    def serves(self) -> tuple[type, ...]:
        return (Classification, MultiLabel)  # a mask has no nearest hyperplane

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        bounds, images, rows = search.target.bounds, search.images, None
        classes = self._classes(search)
        total = torch.zeros_like(images)
        for _ in range(self.steps):
            found = self._contrasts(search, some(images, rows), rows, classes)
            stay = some(search.score, rows) > 0
            if not bool(stay.all()):
                rows = torch.nonzero(stay).flatten() if rows is None else rows[stay]
                found = Contrasts(*(values[stay] for values in found))
                if not len(rows):
                    return
            gap, slope = self._plane(search, found, rows)
            here = some(images, rows)
            step = onto_plane(here, gap, slope, norm=self.norm, bounds=bounds)
            total = put(total, rows, some(total, rows) + step)
            moved = some(search.images, rows) + (1 + self.overshoot) * some(total, rows)
            images = put(images, rows, moved.clamp(bounds.low, bounds.high))
        search.look(some(images, rows), rows=rows)

    def _classes(self, search: Search) -> Tensor | None:
        """Classes to compare with; None for labels that do not exclude each other."""
        if isinstance(search.target.task, MultiLabel):
            return None
        logits = search.look(search.images).logits
        return likeliest(logits, search.references, self.candidates)

    @staticmethod
    def _contrasts(
        search: Search, images: Images, rows: Rows | None, classes: Tensor | None
    ) -> Contrasts:
        if classes is None:
            return flips(search, images, rows=rows)
        return contrasts(search, images, rows=rows, classes=some(classes, rows))

    def _plane(self, search: Search, found: Contrasts, rows: Rows | None) -> tuple[Tensor, Images]:
        """Gap and slope of the nearest plane, or of one for all labels that have to turn."""
        if isinstance(search.target.task, Classification):
            gap, slope = nearest_plane(found, self.norm)
            return gap - _BEYOND, slope
        prediction = Prediction(found.logits, search.target.task)
        distance = -found.gaps / dual_size(found.slopes, self.norm)
        wanted = cheapest(distance, prediction, some(search.references, rows), self.success)
        return common_plane(found._replace(gaps=found.gaps - _BEYOND), wanted)
