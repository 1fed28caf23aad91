"""Faults by layer, bit field and bit position, and the worst single faults by name."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palpate import registry
from palpate.metrics.base import Rows, Share, Values
from palpate.record import CellRecord, Record
from palpate.statistics.cells import Cells, design_of, is_chosen
from palpate.statistics.estimate import Estimate
from palpate.statistics.measure import stratified
from palpate.statistics.paired import label, scores
from palpate.statistics.table import Table

SEVERAL = "several"
BETWEEN = " · "
_BY = ("all", "layer", "group", "part", "bit", "layer part", "group part")


@dataclass(frozen=True, slots=True)
class Stratum:
    """Verdicts of the faults that hit one part of the memory.

    Attributes:
        target: label of the model, with its defence.
        perturbation: component name.
        setting: parameters as canonical JSON.
        by: "all", "layer", "group", "part" (the bit field, the top exponent bit apart), "bit", or
            "layer part" and "group part" for maps.
        name: of the layer, group, part or bit, for maps both with `BETWEEN` between them; "several"
            where one trial hit more than one.
        trials: faults that hit it.
        chosen: whether a search has chosen them; they are then no sample of anything.
        masked: share of (fault, image) pairs without effect on the decision.
        sdc: share silently changed.
        due: share non-finite.
    """

    target: str
    perturbation: str
    setting: str
    by: str
    name: str
    trials: int
    chosen: bool
    masked: Estimate
    sdc: Estimate
    due: Estimate


@dataclass(frozen=True, slots=True)
class WorstFault:
    """One trial, with what it did to the model.

    Attributes:
        target: label of the model, with its defence.
        perturbation: component name.
        setting: parameters as canonical JSON.
        trial: number of the fault.
        site: tensor, index and bit; "and n more" where it flipped several.
        field: sign, exponent, mantissa or integer.
        flips: bits that the trial flipped.
        before: value stored before the flip, as text.
        after: value stored after it, as text.
        clean: mean score without the fault.
        score: mean score under it.
        sdc: share of images whose decision silently changed.
        due: share of images without finite output.
    """

    target: str
    perturbation: str
    setting: str
    trial: int
    site: str
    field: str
    flips: int
    before: str
    after: str
    clean: float
    score: float
    sdc: float
    due: float


def strata(record: Record) -> Table[Stratum]:
    """SDC, DUE and masked shares of every fault cell, over all and by what was hit.

    Faults that a search has chosen are listed over all only: they are no sample of any layer.

    Where trials were dealt to layers of unequal size, shares over more than one layer weight each
    by its size.
    """
    cells = Cells(record)
    found: list[Stratum] = []
    for cell in cells.finished("faults"):
        rows = cells.rows(cell)
        for by in _BY[:1] if is_chosen(cell.notes) else _BY:
            found.extend(_by(cells, cell, rows, by))
    return Table(tuple(found))


def worst_faults(record: Record, *, limit: int = 10) -> Table[WorstFault]:
    """Single trials with the largest loss of score, the worst first, per fault cell.

    Args:
        record: the run.
        limit: trials per cell; those without any loss of score or change of decision are left out.
    """
    cells = Cells(record)
    found: list[WorstFault] = []
    for cell in cells.finished("faults"):
        ranked = sorted(_trials(cell, cells.rows(cell)), key=lambda w: (w.score - w.clean, -w.sdc))
        found.extend([w for w in ranked if w.score < w.clean or w.sdc or w.due][:limit])
    return Table(tuple(found))


def _by(cells: Cells, cell: CellRecord, rows: Rows, by: str) -> Iterator[Stratum]:
    names = np.array([_name(note, by) for note in cell.notes] or [""] * cell.trials)
    order = {n: i for i, n in enumerate(dict.fromkeys(names.tolist()))}
    if by == "bit":
        order = {n: int(n) if n.isdigit() else 999 for n in order}
    for name in sorted(order, key=order.__getitem__):
        if not name:
            continue
        here = names == name
        shares = {
            verdict: _share(cells, cell, rows, here=here, verdict=verdict, by=by)
            for verdict in ("masked", "sdc", "due")
        }
        yield Stratum(
            target=label(cell),
            perturbation=cell.perturbation,
            setting=registry.canonical(cell.setting),
            by=by,
            name=name,
            trials=int(here.sum()),
            chosen=is_chosen(cell.notes),
            **shares,
        )


def _share(
    cells: Cells, cell: CellRecord, rows: Rows, *, here: NDArray[np.bool_], verdict: str, by: str
) -> Estimate:
    kept = np.flatnonzero(here[rows["trial"]])
    part = {name: rows[name][kept] for name in ("case", "trial", "verdict")}
    numbers, weights, drawn = dealt(cell, here)
    return stratified(
        Share((part["verdict"] == verdict).astype(np.float64)),
        design_of(part, "faults", notes=cell.notes),
        strata=numbers[part["trial"]],
        shares=weights / weights.sum() * (1.0 if by == "layer" else drawn),
        confidence=cells.confidence,
    )


def dealt(cell: CellRecord, here: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Values, float]:
    """How the trials that hit one part of the memory were dealt.

    Args:
        cell: of random faults.
        here: (trials,) whether a trial hit the part.

    Returns:
        Stratum of each trial among those hit, memory that the hits in each stand for, and the share
        of the memory that was drawn from at all.
    """
    notes = [] if is_chosen(cell.notes) else cell.notes
    names = [str(note.get("stratum", "")) for note in notes] or [""] * len(here)
    size = {str(n.get("stratum", "")): float(n.get("share", 1.0)) for n in notes}
    hit = Counter(name for name, kept in zip(names, here.tolist(), strict=True) if kept)
    drawn, order = Counter(names), {name: i for i, name in enumerate(hit)}
    weights = np.array([size.get(name, 1.0) * hit[name] / drawn[name] for name in hit])
    covered = min(1.0, sum(size.values())) if size else 1.0
    return np.array([order.get(name, 0) for name in names]), weights, covered


def _name(note: dict[str, Any], by: str) -> str:
    if by == "all":
        return "all"
    found = {_key(site, by) for site in sites_of(note)}
    if not found:
        return ""
    return found.pop() if len(found) == 1 else SEVERAL


def _key(site: dict[str, Any], by: str) -> str:
    names = [str(site.get(key, "")) or ("root" if key == "layer" else "") for key in by.split()]
    return BETWEEN.join(names) if all(names) else ""


def sites_of(note: dict[str, Any]) -> list[dict[str, Any]]:
    """The sites that a trial names."""
    return note.get("sites") or []


def site_name(note: dict[str, Any]) -> str:
    """Tensor, place and bit of a trial's first flip, and how many more there were."""
    first = next(iter(sites_of(note)), {})
    index = ", ".join(str(i) for i in first.get("index") or ())
    flips = _flips(note)
    more = f" and {flips - 1} more" if flips > 1 else ""
    return f"{first.get('tensor', 'unknown')}[{index}] bit {first.get('bit', '?')}{more}"


def _flips(note: dict[str, Any]) -> int:
    return int(note.get("flips", len(sites_of(note))))


def _trials(cell: CellRecord, rows: Rows) -> Iterator[WorstFault]:
    trial = rows["trial"]
    count = np.maximum(np.bincount(trial, minlength=cell.trials), 1)
    mean = {
        "clean": np.bincount(trial, weights=rows["clean_score"], minlength=cell.trials) / count,
        "score": np.bincount(trial, weights=scores(rows), minlength=cell.trials) / count,
        "sdc": np.bincount(trial, weights=rows["verdict"] == "sdc", minlength=cell.trials) / count,
        "due": np.bincount(trial, weights=rows["verdict"] == "due", minlength=cell.trials) / count,
    }
    for number, note in enumerate(cell.notes):
        sites = sites_of(note)
        first = sites[0] if sites else {}
        yield WorstFault(
            target=label(cell),
            perturbation=cell.perturbation,
            setting=registry.canonical(cell.setting),
            trial=number,
            site=site_name(note),
            field=_name(note, "field"),
            flips=_flips(note),
            before=_number(first.get("before")),
            after=_number(first.get("after")),
            **{name: float(values[number]) for name, values in mean.items()},
        )


def _number(value: Any) -> str:
    if value is None:
        return "other in each image"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
