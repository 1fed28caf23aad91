"""Paired differences: disturbed against clean, and model against model, on the same samples.

One 0/1 score per case: Newcombe's interval for paired proportions (Statistics in Medicine 17, 1998,
2635-2650, method 10) and McNemar's exact test. Otherwise (several samples or trials per case, Dice,
multi-label): bootstrap by case, and the exact sign test over the cases' net differences, of which
McNemar's is the special case. P-values are adjusted by Holm's method over each kind of comparison.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.stats import binomtest

from palpate import registry
from palpate.metrics.base import Ratio, Rows, Values
from palpate.record import CellRecord, Record
from palpate.sampling import wilson
from palpate.statistics.cells import (
    ALL_ATTACKS,
    Cells,
    budgets,
    design_of,
    strata_of,
    worst_each,
)
from palpate.statistics.estimate import Design, Estimate, rng
from palpate.statistics.measure import reweighted, widened
from palpate.statistics.resampling import ratio
from palpate.statistics.table import Table


@dataclass(frozen=True, slots=True)
class Difference:
    """Score of one side minus score of the other, on the same samples.

    Attributes:
        kind: "disturbance" (disturbed minus clean), "together" (each sample's worst under several
            attacks of one budget minus clean) or "model" (model minus other model).
        target: label of the model, with its defence.
        other: the clean cell, or the other model with its defence.
        dataset: label.
        family: perturbation family.
        perturbation: component name.
        setting: parameters as canonical JSON.
        value: mean difference of the score, in [-1, 1].
        low: lower end of the interval.
        high: upper end.
        n: pairs.
        gains: cases whose net difference is positive.
        losses: cases whose net difference is negative.
        p: two-sided exact p-value; None for faults, which hit both sides differently.
        p_holm: adjusted over all differences of the same kind.
        method: of the interval.
    """

    kind: str
    target: str
    other: str
    dataset: str
    family: str
    perturbation: str
    setting: str
    value: float
    low: float
    high: float
    n: int
    gains: int
    losses: int
    p: float | None
    p_holm: float | None
    method: str


def paired(record: Record) -> Table[Difference]:
    """All paired differences of a run: against clean, all attacks together, between models.

    Models (and defences of one model) are compared where they met the same perturbation with the
    same setting; faults are left out there, since another model has other bits.
    """
    cells = Cells(record)
    kinds = (_against_clean, _together, _between_models)
    return Table(tuple(row for kind in kinds for row in _adjusted(kind(cells))))


def difference(
    ours: Values,
    theirs: Values,
    design: Design,
    *,
    confidence: float,
    resamples: int,
    name: str,
    dealt: tuple[NDArray[np.intp], Values] | None = None,
) -> Estimate:
    """Mean of ours - theirs over paired scores in [0, 1].

    Args:
        ours: (pairs,).
        theirs: (pairs,).
        design: of the pairs.
        confidence: in (0, 1).
        resamples: bootstrap draws, where Newcombe's formula does not apply.
        name: seeds the bootstrap.
        dealt: stratum per pair and share of the population per stratum, as `strata_of` gives them.
    """
    single = not design.crossed and len(np.unique(design.cases)) == len(ours)
    if single and np.isin(ours, (0, 1)).all() and np.isin(theirs, (0, 1)).all():
        low, high = newcombe(ours == 1, theirs == 1, confidence=confidence)
        value = float((ours - theirs).mean())
        low, high = min(low, value), max(high, value)
        return Estimate(value, low, high, confidence, len(ours), len(ours), "Newcombe, paired")
    measured = Ratio(ours - theirs, np.ones(len(ours)), low=-1.0, high=1.0)
    weighted = measured if dealt is None else reweighted(measured, *dealt)
    missed = 0.0 if dealt is None else 1 - float(dealt[1].sum())
    draw = rng("difference", name)
    found = ratio(weighted, design, confidence=confidence, resamples=resamples, rng=draw)
    return widened(found, measured, missed=missed)


def newcombe(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], *, confidence: float
) -> tuple[float, float]:
    """Interval of a difference of paired proportions (Newcombe 1998, method 10).

    Args:
        ours: (pairs,).
        theirs: (pairs,).
        confidence: in (0, 1).
    """
    n = len(ours)
    both, neither = int((ours & theirs).sum()), int((~ours & ~theirs).sum())
    first, second = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p, q = float(ours.mean()), float(theirs.mean())
    (pl, ph), (ql, qh) = (wilson(x, n, confidence=confidence) for x in (p, q))
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    cross = both * neither - first * second
    cross = max(cross - n / 2, 0.0) if cross > 0 else cross
    link = cross / np.sqrt(margins) if margins else 0.0
    down = (p - pl) ** 2 - 2 * link * (p - pl) * (qh - q) + (qh - q) ** 2
    up = (ph - p) ** 2 - 2 * link * (ph - p) * (q - ql) + (q - ql) ** 2
    low, high = p - q - float(np.sqrt(max(down, 0.0))), p - q + float(np.sqrt(max(up, 0.0)))
    return max(-1.0, low), min(1.0, high)


def sign_test(differences: Values, cases: NDArray[np.intp]) -> tuple[int, int, float]:
    """Cases with a net gain, cases with a net loss, and the exact two-sided p-value.

    With one 0/1 score per case and side this is McNemar's exact test.

    Args:
        differences: (pairs,).
        cases: (pairs,) codes.
    """
    net = np.bincount(cases, weights=differences)
    gains, losses = int((net > 1e-9).sum()), int((net < -1e-9).sum())
    p = float(binomtest(gains, gains + losses, 0.5).pvalue) if gains + losses else 1.0
    return gains, losses, min(p, 1.0)


def way(mean: float, *, gains: int, losses: int) -> int:
    """1 or -1 where the mean and the greater number of cases point there; 0 where they disagree.

    The sign test is of the cases: its p-value says nothing of a mean that goes the other way.

    Args:
        mean: difference.
        gains: cases whose net difference is positive.
        losses: cases whose net difference is negative.
    """
    return int(mean > 0 and gains > losses) - int(mean < 0 and losses > gains)


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted by Holm's step-down method (Scandinavian J. of Statistics 6, 1979)."""
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def _adjusted(found: Iterator[Difference]) -> list[Difference]:
    rows = list(found)
    tested = [(i, row.p) for i, row in enumerate(rows) if row.p is not None]
    for (i, _), p_holm in zip(tested, holm([p for _, p in tested]), strict=True):
        rows[i] = replace(rows[i], p_holm=p_holm)
    return rows


def _against_clean(cells: Cells) -> Iterator[Difference]:
    for cell in cells.finished("attacks", "corruptions", "occlusions", "faults"):
        yield from _from_clean(cells, "disturbance", cell, cells.rows(cell))


def _together(cells: Cells) -> Iterator[Difference]:
    for members, setting, _ in budgets(cells):
        if len(members) > 1:
            rows = worst_each([cells.rows(cell) for cell in members])
            whole = replace(
                members[0], perturbation=ALL_ATTACKS, setting=orjson.loads(setting), notes=[]
            )
            yield from _from_clean(cells, "together", whole, rows)


def _from_clean(cells: Cells, kind: str, cell: CellRecord, rows: Rows) -> Iterator[Difference]:
    known = np.flatnonzero(~np.isnan(rows["clean_score"]))
    if len(known):
        pairs = scores(rows)[known], rows["clean_score"][known]
        design = design_of(rows, cell.family, notes=cell.notes).take(known)
        dealt = strata_of(rows, cell.notes)
        if dealt is not None:
            dealt = dealt[0][known], dealt[1]
        yield _row(cells, kind, cell, other="clean", pairs=pairs, design=design, dealt=dealt)


def _between_models(cells: Cells) -> Iterator[Difference]:
    met: dict[tuple[str, str, str], list[CellRecord]] = {}
    for cell in cells.finished("none", "attacks", "corruptions", "occlusions"):
        setting = registry.canonical(cell.setting)
        met.setdefault((cell.dataset, cell.perturbation, setting), []).append(cell)
    for group in met.values():
        for ours, theirs in itertools.combinations(group, 2):
            if (ours.target == theirs.target) == (ours.defence == theirs.defence):
                continue
            a, b = cells.rows(ours), cells.rows(theirs)
            left, right = shared(a, b)
            if len(left):
                pairs = scores(a)[left], scores(b)[right]
                design = design_of(a, ours.family).take(left)
                yield _row(cells, "model", ours, other=label(theirs), pairs=pairs, design=design)


def _row(
    cells: Cells,
    kind: str,
    cell: CellRecord,
    *,
    other: str,
    pairs: tuple[Values, Values],
    design: Design,
    dealt: tuple[NDArray[np.intp], Values] | None = None,
) -> Difference:
    found = difference(
        *pairs,
        design,
        confidence=cells.confidence,
        resamples=cells.resamples,
        name=f"{kind}:{cell.key}:{other}",
        dealt=dealt,
    )
    gains, losses, p = sign_test(pairs[0] - pairs[1], design.cases)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return Difference(
        kind=kind,
        target=label(cell),
        other=other,
        dataset=cell.dataset,
        family=cell.family,
        perturbation=cell.perturbation,
        setting=registry.canonical(cell.setting),
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        gains=gains,
        losses=losses,
        p=None if cell.family == "faults" else p,
        p_holm=None,
        method=found.method,
    )


def scores(rows: Rows) -> Values:
    """Score per row; 0 where the output is not finite."""
    return np.where(rows["finite"].astype(bool), rows["score"], 0.0).astype(np.float64)


def label(cell: CellRecord) -> str:
    """Name of a model with its defence."""
    return cell.target if cell.defence == "none" else f"{cell.target} + {cell.defence}"


def shared(ours: Rows, theirs: Rows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the (trial, sample) pairs that both have."""
    keys = [
        np.char.add(np.char.add(rows["trial"].astype(str), "\x1f"), rows["sample"])
        for rows in (ours, theirs)
    ]
    _, left, right = np.intersect1d(keys[0], keys[1], return_indices=True)
    return left.astype(np.intp), right.astype(np.intp)
