"""`compare(before, after)`: is this release better than the last, on the same samples?

Every cell that both runs finished with the same model name, defence, perturbation and setting gives
one paired difference, after minus before, as in `paired`. Faults hit other bits in another model,
so they are not paired: the SDC rates are subtracted and the interval is recovered from both (Zou
and Donner, Statistics in Medicine 27, 2008, 1693-1702), which is on the safe side, as the cases are
the same; its p-value is read off the interval.

P-values are adjusted by Holm's method over all cells compared. Non-inferiority needs no adjustment
where it is claimed for all cells together (Berger, Technometrics 24, 1982, 295-300).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from typing_extensions import override

from palpate import registry
from palpate.errors import ConfigError
from palpate.metrics.base import DENSE, Values
from palpate.record import CellRecord, Record
from palpate.statistics._change import GOOD, Change, judged
from palpate.statistics._check import named
from palpate.statistics._match import Apart, matched
from palpate.statistics.cells import Cells, design_of
from palpate.statistics.estimate import Estimate
from palpate.statistics.notebook import comparison_html
from palpate.statistics.origin import origin
from palpate.statistics.paired import difference, label, scores, shared, sign_test
from palpate.statistics.summary import measure
from palpate.statistics.table import Table


@dataclass(frozen=True)
class Comparison(Table[Change]):
    """Two runs compared, in the order of the later run's plan.

    Attributes:
        confidence: level of the intervals, the later run's.
        margin: largest loss that is still acceptable; None where none was given.
        apart: what could not be compared.
        notes: what a reader must know.
        runs: where the earlier and the later run come from.
    """

    confidence: float = 0.95
    margin: float | None = None
    apart: tuple[Apart, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[dict[str, Any], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether a loss of the margin or more is excluded in every cell that should tell."""
        return (
            bool(self.rows)
            and all(row.verdict in GOOD for row in self.rows)
            and not any(apart.unfinished for apart in self.apart)
        )

    @override
    def _repr_html_(self) -> str:
        return comparison_html(self)


def compare(
    before: Record, after: Record, *, margin: float | None = None, names: int = 20
) -> Comparison:
    """Compare two runs on the same data, such as the last release and this one.

    Args:
        before: the earlier run.
        after: the later run.
        margin: largest loss of the score that is still acceptable, in (0, 1); 0.02 is two
            percentage points.
        names: how many changed cases to name per cell and direction.

    Raises:
        DataError: the runs rest on different data.
        TargetError: they have no model in common.
        ConfigError: a margin that is none.
    """
    if margin is not None and not 0 < margin < 1:
        raise ConfigError(f"margin: expected more than 0 and less than 1, got {margin:g}")
    both, sides = matched(before, after), (Cells(before), Cells(after))
    rows: list[Change] = []
    apart = list(both.apart)
    for pair in both.pairs:
        found = _faults(sides, pair) if pair[1].family == "faults" else _inputs(sides, pair, names)
        if isinstance(found, Change):
            rows.append(found)
        else:
            apart.append(Apart("after", named(pair[1]), found, unfinished=True))
    level = sides[1].confidence
    return Comparison(
        rows=tuple(judged(rows, margin=margin, confidence=level)),
        confidence=level,
        margin=margin,
        apart=tuple(apart),
        notes=both.notes,
        runs=(origin(before), origin(after)),
    )


def _inputs(
    sides: tuple[Cells, Cells], pair: tuple[CellRecord, CellRecord], names: int
) -> Change | str:
    old, new = (cells.rows(cell) for cells, cell in zip(sides, pair, strict=True))
    left, right = shared(new, old)
    if not len(left):
        return "no sample in common"
    ours, theirs = scores(new)[left], scores(old)[right]
    design = design_of(new, pair[1].family).take(left)
    cells = sides[1]
    found = difference(
        ours,
        theirs,
        design,
        confidence=cells.confidence,
        resamples=cells.resamples,
        name=f"compare:{pair[1].key}:{pair[0].key}",
    )
    gains, losses, p = sign_test(ours - theirs, design.cases)
    gained, lost = _changed(new["case"][left], ours - theirs)
    metric = "dice" if cells.task.kind in DENSE else "accuracy"
    row = _row(pair, metric, (float(theirs.mean()), float(ours.mean())), found, p=p)
    unshared = len(new["sample"]) + len(old["sample"]) - 2 * len(left)
    more = f"; {unshared} rows without a partner left out" if unshared else ""
    return replace(
        row,
        gains=gains,
        losses=losses,
        gained=tuple(gained[:names]),
        lost=tuple(lost[:names]),
        method=row.method + more,
    )


def _faults(sides: tuple[Cells, Cells], pair: tuple[CellRecord, CellRecord]) -> Change | str:
    metric = registry.load("metrics", "sdc_rate")()
    rates: list[Estimate] = []
    for cells, cell in zip(sides, pair, strict=True):
        rates.append(
            measure(
                metric,
                cells.rows(cell),
                cells,
                family="faults",
                notes=cell.notes,
                confidence=sides[1].confidence,
                resamples=cells.resamples,
            )
        )
    found = _subtracted(*rates)
    if found is None:
        return f"SDC rate without an interval: {rates[0].method}; {rates[1].method}"
    values = rates[0].value or 0.0, rates[1].value or 0.0
    return _row(pair, "sdc_rate", values, found, p=_p_value(found))


def _subtracted(before: Estimate, after: Estimate) -> Estimate | None:
    """After minus before, taken as independent."""
    ends = (before.value, before.low, before.high, after.value, after.low, after.high)
    if any(end is None for end in ends):
        return None
    old, old_low, old_high, new, new_low, new_high = (float(end or 0.0) for end in ends)
    value = new - old
    low = value - float(np.hypot(new - new_low, old_high - old))
    high = value + float(np.hypot(new_high - new, old - old_low))
    method = "not paired, from both intervals"
    n, units = min(before.n, after.n), min(before.units, after.units)
    return Estimate(value, max(-1.0, low), min(1.0, high), after.confidence, n, units, method)


def _p_value(found: Estimate) -> float:
    """Two-sided p-value of a normal error as wide as the interval's side towards zero."""
    value, low, high = (float(end or 0.0) for end in (found.value, found.low, found.high))
    reach = value - low if value > 0 else high - value
    if value == 0 or reach <= 0:
        return float(value == 0)
    z = abs(value) / reach * float(ndtri(0.5 + found.confidence / 2))
    return float(2 * ndtr(-z))


def _changed(cases: NDArray[np.str_], differences: Values) -> tuple[list[str], list[str]]:
    """Names of the cases with a net gain and with a net loss, largest first."""
    names, codes = np.unique(cases, return_inverse=True)
    net = np.bincount(codes, weights=differences)
    order = np.argsort(-np.abs(net), kind="stable")
    return (
        [str(names[i]) for i in order if net[i] > 1e-9],
        [str(names[i]) for i in order if net[i] < -1e-9],
    )


def _row(
    pair: tuple[CellRecord, CellRecord],
    metric: str,
    values: tuple[float, float],
    found: Estimate,
    *,
    p: float,
) -> Change:
    cell = pair[1]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return Change(
        target=label(cell),
        dataset=cell.dataset,
        family=cell.family,
        perturbation=cell.perturbation,
        setting=registry.canonical(cell.setting),
        metric=metric,
        before=values[0],
        after=values[1],
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        gains=0,
        losses=0,
        gained=(),
        lost=(),
        p=p,
        p_holm=p,
        verdict="same" if pair[0].key == cell.key else "cannot tell",
        method=found.method,
    )
