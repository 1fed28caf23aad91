"""What is certified within a radius, beside what attacks have broken within it.

The share certified right is a lower bound of the accuracy under every disturbance of that L2 size,
what attacks have left an upper one (Cohen et al., arXiv 1902.02918, section 4). An answer that is
abstained from counts as not certified. Of masks and labels both are shares of pixels or labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from palpate.metrics.base import CLASSES, Rows, Values, right
from palpate.record import CellRecord, Record
from palpate.statistics._check import Check, checked
from palpate.statistics.cells import Cells, design_of, group_of
from palpate.statistics.estimate import Estimate
from palpate.statistics.paired import label
from palpate.statistics.proportions import share
from palpate.statistics.table import Table

CERTIFIED: Final = "proven samples stand under attack"
_STEPS: Final = (0.25, 0.5, 0.75, 1.0)  # of the largest radius certified
_OFTEN: Final = 0.1  # share of certified samples that may fall: few copies vote, all are certified


@dataclass(frozen=True, slots=True)
class Bracket:
    """Both bounds for one model at one radius.

    Attributes:
        model: label, with its defence.
        radius: L2, in units of the bounds.
        certified: share certified right at this radius.
        attacked: share right that no attack of the run has broken within it; None without attacks.
        abstained: share of answers without any certificate.
        n: images.
    """

    model: str
    radius: float
    certified: Estimate
    attacked: Estimate | None
    abstained: float
    n: int


def certified(record: Record) -> Table[Bracket]:
    """Rows by model and rising radius; none where no model of the run certifies anything."""
    cells = Cells(record)
    return Table(tuple(row for cell in _proving(cells) for row in _brackets(cells, cell)))


def certificate_checks(cells: Cells) -> Iterator[Check]:
    """A sample certified beyond the size of a change must not have fallen to it."""
    found: list[Check] = []
    proving = _proving(cells) if cells.task.kind in CLASSES else []
    for cell in proving:
        clean = cells.rows(cell)
        reach = dict(zip(clean["sample"].tolist(), _reach(clean, 0.0).tolist(), strict=True))
        fallen = {
            sample
            for rows in _attacks(cells, cell)
            for sample, l2, hit in zip(
                rows["sample"].tolist(), rows["l2"].tolist(), _broken(rows), strict=True
            )
            if hit and l2 < reach.get(sample, 0.0)
        }
        if fallen:
            count = sum(r > 0 for r in reach.values())
            status = "fail" if len(fallen) > max(1.0, _OFTEN * count) else "warn"
            evidence = (
                f"{len(fallen)} of {count} proven samples fell to a change within their radius;"
                " the answer is a vote of few copies, the proof is of all"
            )
            found.append(Check(CERTIFIED, status, label(cell), evidence))
    yield from checked(found, CERTIFIED, proving, "no change within a radius broke its sample")


def _proving(cells: Cells) -> list[CellRecord]:
    """Clean cells whose target certifies."""
    return [c for c in cells.finished("none") if np.isfinite(cells.rows(c)["radius"]).any()]


def _attacks(cells: Cells, clean: CellRecord) -> Iterator[Rows]:
    for cell in cells.finished("attacks"):
        if group_of(cell) == group_of(clean):
            yield cells.rows(cell)


def _reach(rows: Rows, radius: float) -> Values:
    """Per sample, how far it is certified right, as a share of its pixels where it has several."""
    far = rows["radius"] >= radius
    if rows["pixels"].any() or rows["reference"].shape[1] != 1:
        return np.where(far, rows["certified"], 0.0).astype(float)
    return np.where(far & (rows["certified"] > 0), rows["radius"], 0.0).astype(float)


def _brackets(cells: Cells, cell: CellRecord) -> Iterator[Bracket]:
    rows = cells.rows(cell)
    design = design_of(rows, "none")
    parts = bool(rows["pixels"].any()) or rows["reference"].shape[1] != 1
    largest = float(np.nanmax(rows["radius"]))
    radii = [largest] if parts else [0.0, *(step * largest for step in _STEPS)]
    attacks = list(_attacks(cells, cell))
    for radius in sorted(set(radii)):
        reached = _reach(rows, radius)
        proved = reached if parts else (reached > 0).astype(float)
        left = _left(rows, attacks, radius)
        yield Bracket(
            model=label(cell),
            radius=radius,
            certified=share(proved, design, confidence=cells.confidence),
            attacked=share(left, design, confidence=cells.confidence) if attacks else None,
            abstained=float(rows["abstained"].mean()),
            n=len(rows["sample"]),
        )


def _left(clean: Rows, attacks: list[Rows], radius: float) -> Values:
    """Per sample of the clean cell, the least that any attack within the radius has left."""
    left = dict(zip(clean["sample"].tolist(), _share_right(clean).tolist(), strict=True))
    asked = dict(zip(clean["sample"].tolist(), clean["prompt"].tolist(), strict=True))
    for rows in attacks:
        # a certificate is of one question: another question is no change of the image
        same = np.array(
            [asked[s] == p for s, p in zip(rows["sample"].tolist(), rows["prompt"], strict=True)]
        )
        near = same & (rows["l2"] <= radius)
        found = zip(rows["sample"][near].tolist(), _share_right(rows)[near].tolist(), strict=True)
        for sample, value in found:
            left[sample] = min(value, left.get(sample, 1.0))
    return np.array([left[sample] for sample in clean["sample"].tolist()])


def _share_right(rows: Rows) -> Values:
    if rows["pixels"].any():
        return 1 - rows["wrong_pixels"] / np.maximum(rows["pixels"], 1)
    return right(rows).mean(axis=1).astype(float)


def _broken(rows: Rows) -> list[bool]:
    return (right(rows).mean(axis=1) < 1).tolist()
