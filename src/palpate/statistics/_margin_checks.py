"""Whether fault campaigns that were to stop at a margin reached it."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from palpate.record import CellRecord
from palpate.sampling import Rate, Tally, estimate
from palpate.statistics._check import Check, named
from palpate.statistics.cells import Cells

_MANY: Final = (
    10**15
)  # without the population's size no credit is taken for having drawn much of it


def margin_checks(cells: Cells) -> Iterator[Check]:
    """One check for every fault cell with a margin; recomputed from its rows."""
    for cell in cells.finished("faults"):
        asked = float(cell.setting.get("margin") or 0.0)
        if not asked:
            continue
        rate = _rate(cells, cell)
        evidence = (
            f"SDC rate {rate.value:.2g} [{rate.low:.2g}, {rate.high:.2g}] from {rate.trials} faults"
            f" on these images, half-width {rate.margin:.2g}, asked {asked:.2g}"
        )
        reached = rate.margin <= asked * 1.001 or rate.trials < int(cell.setting["trials"])
        status = "pass" if reached else "warn"
        more = "" if reached else f"; all {cell.setting['trials']} trials were used up"
        yield Check("margin of the SDC rate reached", status, named(cell), evidence + more)


def _rate(cells: Cells, cell: CellRecord) -> Rate:
    rows = cells.rows(cell)
    silent = (rows["verdict"] == "sdc").astype(np.float64)
    counts = np.bincount(rows["trial"], minlength=cell.trials)
    values = np.bincount(rows["trial"], weights=silent, minlength=cell.trials) / counts
    tallies: dict[str, Tally] = {}
    for note, value in zip(cell.notes, values.tolist(), strict=True):
        name, size = str(note["stratum"]), max(1, round(float(note["share"]) * _MANY))
        tallies[name] = tallies.get(name, Tally(size)).plus([value])
    return estimate(list(tallies.values()), confidence=0.95)
