"""One perturbation for many samples: does it carry over to those that it was not fitted on?"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from palpate.record import CellRecord
from palpate.statistics._check import Check, named
from palpate.statistics.cells import Cells

SHARED: Final = "universal perturbation fools samples that it never saw"
_LOST: Final = 0.2  # share fooled that may be lost from the fitting samples to the others


def shared_checks(cells: Cells) -> Iterator[Check]:
    """One row for each cell whose search told on how many samples it was fitted."""
    for cell in cells.finished("attacks"):
        told = [one for note in cell.notes for one in note.get("universal") or ()]
        if told:
            yield _carries_over(cell, told)


def _carries_over(cell: CellRecord, told: list[Mapping[str, Any]]) -> Check:
    fitted, own = _weighted(told, "fitted_on", "fooling_rate")
    others, apart = _weighted(told, "held_out", "fooling_rate_held_out")
    evidence = (
        f"other decisions on {own:.0%} of the samples that it was fitted on ({fitted}), on"
        f" {apart:.0%} of others ({others}); L2 norm {max(float(t['l2']) for t in told):.4g}"
    )
    if own == 0:
        return Check(SHARED, "warn", named(cell), f"none was found: {evidence}")
    return Check(SHARED, "warn" if own - apart > _LOST else "pass", named(cell), evidence)


def _weighted(told: list[Mapping[str, Any]], count: str, rate: str) -> tuple[int, float]:
    total = sum(int(one[count]) for one in told)
    return total, sum(int(one[count]) * float(one[rate]) for one in told) / total
