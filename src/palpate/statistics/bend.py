"""Whether a score falls faster at high doses than at low ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from palpate import registry
from palpate.metrics.base import Ratio, Rows, Values
from palpate.record import CellRecord, Record
from palpate.statistics.cells import Cells, group_of
from palpate.statistics.estimate import Design, Estimate, codes
from palpate.statistics.measure import estimate
from palpate.statistics.paired import label, scores
from palpate.statistics.table import Table


@dataclass(frozen=True, slots=True)
class Bend:
    """Slopes of one model under one disturbance, below and above the middle dose.

    Attributes:
        target: label of the model, with its defence.
        perturbation: component name.
        middle: dose that parts the two halves.
        last: largest dose.
        early: loss of score per unit of dose, from clean to the middle.
        late: likewise from the middle to the last dose.
        excess: late minus early, on the same cases.
        end: score at the last dose.
    """

    target: str
    perturbation: str
    middle: float
    last: float
    early: Estimate
    late: Estimate
    excess: Estimate
    end: Estimate


def bends(record: Record, perturbation: str, dose: str) -> Table[Bend]:
    """One row per model that met the disturbance at three doses or more.

    Args:
        record: the run.
        perturbation: component name.
        dose: its parameter; the middle is the measured dose nearest to half of the largest.
    """
    cells = Cells(record)
    groups: dict[tuple[tuple[str, str, str], str], list[CellRecord]] = {}
    for cell in cells.finished():
        if cell.perturbation == perturbation and cells.clean_of(cell) is not None:
            rest = {k: v for k, v in cell.setting.items() if k != dose}
            groups.setdefault((group_of(cell), registry.canonical(rest)), []).append(cell)
    rows = [_bend(cells, members, dose) for members in groups.values() if len(members) > 2]
    return Table(tuple(rows))


def _bend(cells: Cells, members: list[CellRecord], dose: str) -> Bend:
    doses = {float(cell.setting[dose]): cell for cell in members}
    last = max(doses)
    middle = min(doses, key=lambda d: abs(d - last / 2))
    rows = cells.rows(doses[last])
    clean, half, full = (
        _by_sample(rows, rows["clean_score"]),
        _by_sample(cells.rows(doses[middle])),
        _by_sample(rows),
    )
    early, late = (clean - half) / middle, (half - full) / (last - middle)
    cases = codes(rows["case"][rows["trial"] == 0][np.argsort(_samples(rows), kind="stable")])
    steepest = 1 / middle + 1 / (last - middle)

    def mean(
        values: Values, name: str, *, low: float = -steepest, high: float = steepest
    ) -> Estimate:
        return estimate(
            Ratio(values, np.ones(len(values)), low=low, high=high),
            Design(cases, np.zeros(len(values), dtype=np.intp)),
            confidence=cells.confidence,
            resamples=cells.resamples,
            name=f"bend {name}",
        )

    return Bend(
        target=label(members[0]),
        perturbation=members[0].perturbation,
        middle=middle,
        last=last,
        early=mean(early, "early"),
        late=mean(late, "late"),
        excess=mean(late - early, "excess"),
        end=mean(full, "end", low=0.0, high=1.0),
    )


def _samples(rows: Rows) -> Any:
    return rows["sample"][rows["trial"] == 0]


def _by_sample(rows: Rows, values: Values | None = None) -> Values:
    """Mean over the trials of each sample, samples in sorted order."""
    number = np.unique(rows["sample"], return_inverse=True)[1]
    sums = np.bincount(number, weights=scores(rows) if values is None else values)
    return sums / np.bincount(number)
