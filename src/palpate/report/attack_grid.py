"""The attack cells of a run by model, component and setting, and differences of their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from palpate.record import CellRecord, Record
from palpate.report import words
from palpate.statistics.cells import Cells, budget_of
from palpate.statistics.estimate import Design, Estimate, codes
from palpate.statistics.paired import difference, label, scores, shared
from palpate.statistics.summary import Summary

_TRAINED: Final = {"cross_entropy": "ce"}  # a recipe's word for what an attack calls otherwise

Ladder = dict[float, CellRecord]


@dataclass(frozen=True)
class Grid:
    """Finished attacks with a budget in the largest-change norm.

    Attributes:
        cells: reader of the run.
        summary: its numbers.
        record: the run.
    """

    cells: Cells
    summary: Summary
    record: Record

    @property
    def models(self) -> list[str]:
        """Every model that was attacked, with its defence."""
        return list(dict.fromkeys(label(c) for c in self._attacks()))

    def ladder(self, model: str, attack: str, **setting: Any) -> Ladder:
        """The first cell at each epsilon whose setting holds these values."""
        found: Ladder = {}
        for cell in self._attacks():
            fits = all(cell.setting.get(k) == v for k, v in setting.items())
            if label(cell) == model and cell.perturbation == attack and fits:
                found.setdefault(float(cell.setting["epsilon"]), cell)
        return dict(sorted(found.items()))

    def values(self, attack: str, name: str) -> list[Any]:
        """What one parameter was over all cells of an attack, in the order of the audit."""
        cells = (c for c in self._attacks() if c.perturbation == attack)
        return list(dict.fromkeys(c.setting.get(name) for c in cells))

    def trained_with(self, model: str) -> str | None:
        """The loss that a model was trained with, where its card says so."""
        for target in self.record.manifest["targets"]:
            recipe = (target.get("card") or {}).get("recipe") or {}
            if model.split(" + ")[0] == target["label"] and "loss" in recipe:
                return _TRAINED.get(recipe["loss"], recipe["loss"])
        return None

    def drop(self, cell: CellRecord) -> float | None:
        """Relative drop of a cell, from the summary."""
        found = self.summary.find(metric="relative_drop", cell=cell.key)
        return found[0].value if found else None

    def between(
        self, pairs: Sequence[tuple[CellRecord, CellRecord]], *, compared: int = 1
    ) -> Estimate:
        """Mean score of the first of each pair less that of the second, on the same samples.

        Args:
            pairs: cells of the same data; all of a patient's rows stay together in the bootstrap.
            compared: how many such intervals one verdict reads; each is widened by Bonferroni.
        """
        ours: list[Any] = []
        theirs: list[Any] = []
        cases: list[Any] = []
        for one, other in pairs:
            a, b = self.cells.rows(one), self.cells.rows(other)
            left, right = shared(a, b)
            ours.append(scores(a)[left])
            theirs.append(scores(b)[right])
            cases.append(a["case"][left])
        names = np.concatenate(cases)
        return difference(
            np.concatenate(ours),
            np.concatenate(theirs),
            Design(codes(names), np.zeros(len(names), dtype=np.intp)),
            confidence=1 - (1 - self.cells.confidence) / compared,
            resamples=self.cells.resamples,
            name="|".join(f"{one.key}:{other.key}" for one, other in pairs),
        )

    def _attacks(self) -> list[CellRecord]:
        found = self.cells.finished("attacks")
        # other norms, and attacks whose budget is no norm or that have none, are not comparable
        return [c for c in found if (b := budget_of(c)) is not None and b[0] == "linf"]


def common(ours: Ladder, theirs: Ladder) -> list[tuple[CellRecord, CellRecord]]:
    """Pairs of cells at the epsilons that both have."""
    return [(cell, theirs[e]) for e, cell in ours.items() if e in theirs]


def way(found: Estimate) -> int:
    """-1 where the whole interval is below nothing, 1 where it is above, else 0."""
    if found.low is None or found.high is None:
        return 0
    return -1 if found.high < 0 else int(found.low > 0)


def said(found: Estimate) -> str:
    """A difference with its interval, in percentage points."""
    if found.value is None:
        return "–"
    return f"{words.points(found.value)} {words.interval(found.low, found.high)}"
