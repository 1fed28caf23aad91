"""Critical bits: how many there are, and where, from single random flips.

A critical bit is one whose flip alone silently changes the decision on at least one of the images
tested. A harmful one takes more than a tenth of the clean score, silently or not (the criterion of
Hong et al. 2019, arXiv 1906.01017). Both are counted over faults: the images are what they are.
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


@dataclass(frozen=True, slots=True)
class Critical:
    """Critical bits in one part of the memory.

    Attributes:
        target: label of the model, with its defence.
        perturbation: component name.
        setting: parameters as canonical JSON.
        by: "all", "group" or "tensor".
        name: of the group or tensor.
        bits: addressable bits there.
        trials: single flips that hit it.
        critical: share of its bits that are critical.
        harmful: share of its bits whose flip costs more than a tenth of the clean score.
    """

    target: str
    perturbation: str
    setting: str
    by: str
    name: str
    bits: int
    trials: int
    critical: Estimate
    harmful: Estimate

    def count(self) -> tuple[float, float, float] | None:
        """Number of critical bits, with both ends of its interval."""
        e = self.critical
        if e.value is None or e.low is None or e.high is None:
            return None
        return e.value * self.bits, e.low * self.bits, e.high * self.bits


def critical_bits(record: Record) -> Table[Critical]:
    """Critical bits of every cell of single random flips in weights: all, by group, by tensor.

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
    hits = _trial_values(cells.rows(cell), cell.trials)
    for by in ("all", "group", "tensor"):
        names = np.array([str(site.get(by, "")) if by != "all" else "all" for site in sites])
        bits: dict[str, int] = {}
        for part in cell.notes[0]["population"]:
            name = "all" if by == "all" else str(part[by])
            bits[name] = bits.get(name, 0) + int(part["bits"])
        parts = [
            _part(cells, cell, hits, here=names == name, name=(by, name, bits.get(name, 0)))
            for name in dict.fromkeys(names.tolist())
        ]
        yield from sorted(parts, key=lambda p: -(p.critical.value or 0.0))


def _part(
    cells: Cells,
    cell: CellRecord,
    hits: tuple[Values, Values],
    *,
    here: NDArray[np.bool_],
    name: tuple[str, str, int],
) -> Critical:
    numbers, weights, drawn = dealt(cell, here)
    kept = np.flatnonzero(here)
    design = Design(np.arange(len(kept)), np.arange(len(kept)))
    critical, harmful = (
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
        trials=len(kept),
        critical=critical,
        harmful=harmful,
    )


def _trial_values(rows: Rows, trials: int) -> tuple[Values, Values]:
    """Per trial, whether it is critical and whether it is harmful."""
    trial: Any = rows["trial"]
    silent = np.bincount(trial, weights=rows["verdict"] == "sdc", minlength=trials)
    clean = np.bincount(trial, weights=rows["clean_score"], minlength=trials)
    left = np.bincount(trial, weights=scores(rows), minlength=trials)
    return (silent > 0).astype(np.float64), (left < (1 - HARM) * clean).astype(np.float64)
