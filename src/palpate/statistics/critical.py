"""Critical bits: how many there are, and where, from single random flips.

A critical bit is one whose flip alone silently changes the decision on at least one of the images
tested. A harmful one takes more than a tenth of the clean score, silently or not (the criterion of
Hong et al. 2019, arXiv 1906.01017). A fatal one brings the score to that of always giving the most
frequent answer or below (other tasks: to half of the clean score); an output that is not finite is
wrong. All are counted over faults: the images are what they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate import registry
from palpate.metrics.base import Rows, Share, Values
from palpate.record import CellRecord, Record
from palpate.statistics.cells import Cells, is_chosen
from palpate.statistics.estimate import Design, Estimate
from palpate.statistics.measure import stratified
from palpate.statistics.paired import label, scores
from palpate.statistics.strata import dealt, sites_of
from palpate.statistics.table import Table

HARM: Final = 0.1
SCAN: Final = frozenset({"in_proj", "conv1d", "conv2d", "x_proj", "dt", "A", "D", "out_proj"})
_BY: Final = ("all", "group", "tensor", "part", "role")


@dataclass(frozen=True, slots=True)
class Critical:
    """Critical bits in one part of the memory.

    Attributes:
        target: label of the model, with its defence.
        perturbation: component name.
        setting: parameters as canonical JSON.
        by: "all", "group", "tensor", "part" (bit field) or "role" (stem, scan, rest).
        name: of what `by` says.
        bits: addressable bits there.
        elements: stored numbers that these bits make up; 0 for a part, which is none.
        trials: single flips that hit it.
        critical: share of its bits that are critical.
        harmful: share of its bits whose flip costs more than a tenth of the clean score.
        fatal: share of its bits whose flip brings the score to chance.
    """

    target: str
    perturbation: str
    setting: str
    by: str
    name: str
    bits: int
    elements: int
    trials: int
    critical: Estimate
    harmful: Estimate
    fatal: Estimate

    def count(self) -> tuple[float, float, float] | None:
        """Number of critical bits, with both ends of its interval."""
        e = self.critical
        if e.value is None or e.low is None or e.high is None:
            return None
        return e.value * self.bits, e.low * self.bits, e.high * self.bits


def critical_bits(record: Record) -> Table[Critical]:
    """Critical bits of every cell of single random flips in stored numbers, by what was hit.

    Parts of the memory that no trial hit are left out. The parts with most critical bits per bit
    come first.
    """
    cells = Cells(record)
    found: list[Critical] = []
    for cell in cells.finished("faults"):
        if _is_of_single_flips(cell):
            found.extend(_of(cells, cell))
    return Table(tuple(found))


def _is_of_single_flips(cell: CellRecord) -> bool:
    if not cell.notes or is_chosen(cell.notes) or not cell.notes[0].get("population"):
        return False
    return all(note.get("flips") == 1 for note in cell.notes)


def _of(cells: Cells, cell: CellRecord) -> Iterator[Critical]:
    sites = [sites_of(note)[0] for note in cell.notes]
    hits = fates(cells.rows(cell), cell.trials, kind=cells.task.kind)
    for by in _BY:
        names = np.array([_key(site, by) for site in sites])
        sizes = _sizes(cell.notes[0]["population"], by)
        parts = [
            _part(cells, cell, hits, here=names == name, name=(by, name, *sizes.get(name, (0, 0))))
            for name in dict.fromkeys(names.tolist())
        ]
        yield from sorted(parts, key=lambda p: -(p.critical.value or 0.0))


def _key(site: dict[str, Any], by: str) -> str:
    if by == "all":
        return "all"
    if by != "role":
        return str(site.get(by, ""))
    group = site.get("group", "")
    return "stem" if group == "stem" else "scan" if group in SCAN else "rest"


def _sizes(population: list[dict[str, Any]], by: str) -> dict[str, tuple[int, int]]:
    """Bits and elements of each part of the memory."""
    found: dict[str, tuple[int, int]] = {}
    for tensor in population:
        if by == "part":
            entries = [(part, bits, 0) for part, bits in tensor["parts"].items()]
        else:
            entries = [(_key(tensor, by), tensor["bits"], tensor["elements"])]
        for name, bits, elements in entries:
            known = found.get(name, (0, 0))
            found[name] = (known[0] + bits, known[1] + elements)
    return found


def _part(
    cells: Cells,
    cell: CellRecord,
    hits: tuple[Values, ...],
    *,
    here: NDArray[np.bool_],
    name: tuple[str, str, int, int],
) -> Critical:
    numbers, weights, drawn = dealt(cell, here)
    kept = np.flatnonzero(here)
    design = Design(np.arange(len(kept)), np.arange(len(kept)))
    critical, harmful, fatal = (
        stratified(
            Share(values[kept]),
            design,
            strata=numbers[kept],
            shares=weights / weights.sum() * drawn,
            confidence=cells.confidence,
        )
        for values in hits
    )
    return Critical(
        target=label(cell),
        perturbation=cell.perturbation,
        setting=registry.canonical(cell.setting),
        by=name[0],
        name=name[1],
        bits=name[2],
        elements=name[3],
        trials=len(kept),
        critical=critical,
        harmful=harmful,
        fatal=fatal,
    )


def fates(rows: Rows, trials: int, *, kind: str) -> tuple[Values, Values, Values]:
    """Per trial of a cell, whether it is critical, harmful and fatal; NaN where clean is not known.

    A model that is no better than always giving the most frequent answer has nothing to lose: no
    fault is fatal to it.

    Args:
        rows: of the cell.
        trials: how many there are.
        kind: of the task.
    """
    trial: Any = rows["trial"]
    count = np.bincount(trial, minlength=trials)
    silent = np.bincount(trial, weights=rows["verdict"] == "sdc", minlength=trials)
    clean = np.bincount(trial, weights=rows["clean_score"], minlength=trials) / count
    left = np.bincount(trial, weights=scores(rows), minlength=trials) / count
    chance = clean / 2
    if kind == "classification":
        counts = np.unique(rows["reference"][trial == 0, 0], return_counts=True)[1]
        chance = np.full(trials, counts.max() / counts.sum()) if len(counts) > 1 else chance
    harmful = np.where(np.isnan(clean), np.nan, left < (1 - HARM) * clean)
    falls = (left <= chance + 1e-12) & (clean > chance + 1e-12)
    return (silent > 0).astype(np.float64), harmful, np.where(np.isnan(clean), np.nan, falls)
