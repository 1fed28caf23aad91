"""`summarise(record)`: one row per target, defence, cell and metric, each with its interval."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from palpate import registry
from palpate.config import Spec, build, sweep
from palpate.metrics._masks import SIZES, by_class, by_size, has_pixels, has_regions
from palpate.metrics.base import ATTACKS, FAULTS, Metric, Ratio, Rows, Share, TaskInfo
from palpate.metrics.robust_accuracy import could_not_attack
from palpate.record import CellRecord, Record
from palpate.statistics.cells import (
    ALL_ATTACKS,
    Cells,
    budgets,
    design_of,
    is_chosen,
    stacked,
    strata_of,
    worst_each,
)
from palpate.statistics.estimate import Estimate, undefined
from palpate.statistics.measure import estimate, reweighted, stratified, widened
from palpate.statistics.notebook import summary_html
from palpate.statistics.table import Table

CHOSEN = "chosen faults"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One number of the audit.

    Attributes:
        target: label of the model.
        defence: "none" for the bare target.
        dataset: label.
        family: "none" for clean.
        perturbation: component name; "none" for clean; "all attacks" for the worst case per sample
            over all attacks of one norm and epsilon.
        setting: parameters as canonical JSON.
        metric: component name, with parameters other than the usual ones in brackets;
            "dice[stomach]" for one of several classes of a mask, "dice[small lesions]" for samples
            of that size alone.
        value: None where it is undefined; `note` says why.
        low: lower end of the interval; None where no honest interval exists.
        high: upper end.
        n: rows that entered the value (decisions).
        units: independent units that they are worth (patients, faults).
        method: how the interval was made.
        note: what a reader must know, such as "could not attack".
        cell: key of the cell, empty for a row over several cells.
    """

    target: str
    defence: str
    dataset: str
    family: str
    perturbation: str
    setting: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    units: float
    method: str
    note: str
    cell: str


@dataclass(frozen=True)
class Summary(Table[Row]):
    """All rows of one run, in the order of the plan.

    Attributes:
        confidence: level of every interval.
    """

    confidence: float = 0.95

    @override
    def _repr_html_(self) -> str:
        return summary_html(self)


def summarise(record: Record) -> Summary:
    """Estimate every metric of every finished cell.

    A cell that failed gives one row without a value, whose note is the error.

    Args:
        record: the run; cells not yet run are simply absent.
    """
    cells = Cells(record)
    how = {"confidence": cells.confidence, "resamples": cells.resamples}
    metrics = chosen_metrics(record.manifest["config"].get("metrics") or ())
    rows: list[Row] = []
    for cell in record.cells:
        rows.extend(_cell_rows(cells, cell, metrics, how))
    rows.extend(_worst_rows(cells, metrics, how))
    return Summary(tuple(rows), cells.confidence)


def chosen_metrics(asked: Sequence[str | Spec]) -> list[Metric]:
    """Metrics the audit asks for (all if it names none) and those that are always computed.

    Args:
        asked: names, or `{"name": ..., parameters}` in which lists are sweeps.
    """
    specs: list[Spec] = [{"name": m} if isinstance(m, str) else dict(m) for m in asked]
    known = registry.names("metrics")
    every = {name: registry.load("metrics", name) for name in known}
    named = {spec["name"] for spec in specs}
    chosen: list[Metric] = []
    for name, cls in every.items():
        if name in named:
            own = [spec for spec in specs if spec["name"] == name]
            chosen += [build("metrics", one) for spec in own for one in sweep("metrics", spec)]
        elif not specs or cls.essential:
            chosen.append(cls())
    return list(dict.fromkeys(chosen))


def metric_label(metric: Metric) -> str:
    """Component name, with the parameters that are not the usual ones in brackets."""
    usual = registry.describe(type(metric)())
    others = [
        f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in registry.describe(metric).items()
        if v != usual[k]
    ]
    return registry.name_of(metric) + (f"[{', '.join(others)}]" if others else "")


def _cell_rows(
    cells: Cells, cell: CellRecord, metrics: list[Metric], how: dict[str, Any]
) -> Iterator[Row]:
    kind, setting = cells.task.kind, registry.canonical(cell.setting)
    applicable = [m for m in metrics if m.applies(task=kind, family=cell.family)]
    if cell.status != "ok" or not cell.samples:
        why = f"{FAILED}: {(cell.error or {}).get('type', 'no samples')}"
        for metric in applicable[:1]:
            yield _row(cell, setting, metric, undefined(how["confidence"], why=why), note=why)
        return
    rows = cells.rows(cell)
    for metric in applicable:
        if metric.needs_regions and not has_regions(rows):
            continue
        if metric.needs_proof and np.isnan(rows["certified"]).all():
            continue
        if metric.needs_pixels and not has_pixels(rows):
            continue
        for name, part in _parts(metric, rows, cells.task):
            found = measure(metric, part, cells, family=cell.family, notes=cell.notes, **how)
            note = _note(metric, part, found, cell.notes)
            if name in SIZES:
                note = "; ".join(filter(None, (SIZES[name], note)))
            row = _row(cell, setting, metric, found, note=note)
            yield dataclasses.replace(row, metric=f"{row.metric}[{name}]") if name else row


def _parts(metric: Metric, rows: Rows, task: TaskInfo) -> Iterator[tuple[str, Rows]]:
    """All rows under the empty name, then those of each class and of each size of lesion."""
    yield "", rows
    if metric.per_class:
        yield from by_class(rows, task)
    if metric.by_size:
        yield from by_size(rows)


def _worst_rows(cells: Cells, metrics: list[Metric], how: dict[str, Any]) -> Iterator[Row]:
    for members, setting, planned in budgets(cells):
        parts = [cells.rows(cell) for cell in members]
        every, worst = stacked(parts), worst_each(parts)
        for metric in metrics:
            if cells.task.kind not in metric.tasks:
                continue
            if metric.families != ATTACKS and not metric.of_worst:
                continue
            rows = worst if metric.of_worst else every
            found = measure(metric, rows, cells, family="attacks", notes=[], **how)
            note = _note(metric, rows, found, [])
            if len(members) < planned:
                note = f"only {len(members)} of {planned} attacks finished; {note}".removesuffix(
                    "; "
                )
            row = _row(members[0], setting, metric, found, note=note)
            yield dataclasses.replace(row, perturbation=ALL_ATTACKS, cell="")


def measure(
    metric: Metric,
    rows: Rows,
    cells: Cells,
    *,
    family: str,
    notes: list[dict[str, Any]],
    confidence: float,
    resamples: int,
) -> Estimate:
    """Estimate one metric on the rows of one cell."""
    if metric.needs_clean and np.isnan(rows["clean_score"]).any():
        return undefined(confidence, why="no clean result to compare with")
    measured = metric.measure(rows, cells.task)
    design = design_of(rows, family, notes=notes)
    name = f"{registry.name_of(metric)}:{'|'.join(np.unique(rows['case']).tolist())}"
    dealt = strata_of(rows, notes)
    if dealt is not None and isinstance(measured, Share):
        strata, shares = dealt
        return stratified(measured, design, strata=strata, shares=shares, confidence=confidence)
    if dealt is not None and isinstance(measured, Ratio):
        strata, shares = dealt
        weighted = reweighted(measured, strata, shares)
        found = estimate(weighted, design, confidence=confidence, resamples=resamples, name=name)
        return widened(found, measured, missed=1 - float(shares.sum()))
    return estimate(measured, design, confidence=confidence, resamples=resamples, name=name)


def _note(metric: Metric, rows: Rows, found: Estimate, notes: list[dict[str, Any]]) -> str:
    general, own = _general_note(metric, rows, found, notes), metric.note(rows)
    return "; ".join(filter(None, (own, general)))


def _general_note(metric: Metric, rows: Rows, found: Estimate, notes: list[dict[str, Any]]) -> str:
    if found.value is None and found.method.startswith("no clean"):
        return found.method
    said: list[str] = []
    stuck = int((rows["status"] != "ok").sum())
    if stuck:
        tries = f"no gradient or no movement in {stuck} of {len(rows['status'])} tries"
        said.append("could not attack" if could_not_attack(rows) else tries)
    if is_chosen(notes):
        said.append(
            f"{CHOSEN}: says what an adversary can do, not how often a random fault does it"
        )
    lost = int((~rows["finite"].astype(bool)).sum())
    if lost and not metric.families <= FAULTS:
        said.append(f"{lost} of {len(rows['finite'])} outputs non-finite, counted as wrong")
    if not said and (found.value is None or found.low is None):
        said.append(found.method)
    return "; ".join(said)


def _row(cell: CellRecord, setting: str, metric: Metric, found: Estimate, *, note: str) -> Row:
    return Row(
        target=cell.target,
        defence=cell.defence,
        dataset=cell.dataset,
        family=cell.family,
        perturbation=cell.perturbation,
        setting=setting,
        metric=metric_label(metric),
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        units=round(found.units, 3),
        method=found.method,
        note=note,
        cell=cell.key,
    )
