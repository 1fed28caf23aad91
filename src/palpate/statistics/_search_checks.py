"""Did each attack's search do its work? Read off what it said of itself, sample by sample.

Pintor et al., "Indicators of Attack Failure" (arXiv 2106.09947), section 3.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate.metrics.base import LABELS, Rows, Values, right
from palpate.record import CellRecord
from palpate.statistics._check import GRADIENT_FREE, ONE_FOR_ALL, TRANSFER, Check, checked, named
from palpate.statistics.cells import Cells, budget_of
from palpate.statistics.paired import scores

RISES: Final = "the loss of the attack rises"
CONVERGED: Final = "attack converged (loss flat over the last steps)"
CLAIMED: Final = "attack success equals the re-measured decisions"
IN_RANGE: Final = "pixels within the legal range"

_UNSEEN: Final = {"art", "foolbox", "torchattacks", "normalised_pgd"}  # only the end is measured
_OTHERWISE: Final = GRADIENT_FREE | TRANSFER | ONE_FOR_ALL | _UNSEEN
_AUDITED: Final = {"goal": "break", "label": "reference", "prompt": "same", "eot": 1}
_FLAT = 1e-6  # cross-entropy that is no rise
_HALF, _SOME = 0.5, 0.1  # share of the samples that stand although the loss never rose
_LATE = 0.1  # mean share of the rise that the last quarter may bring
_OFTEN = 0.02  # share of claims that may differ before it is no rounding
_NEAR = 1e-3


def search_checks(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    """The checks that need the traces, and the range that every disturbed pixel must keep."""
    for check in (_claims, _rises, _converged):
        yield from check(cells, attacks)
    yield from _in_range(cells)


def _claims(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    """What the search claimed, what was measured afterwards, and what the stored decisions say."""
    exact = cells.record.manifest["config"].get("storage", "float32") == "float32"
    found: list[Check] = []
    for cell in attacks:
        rows = cells.rows(cell)
        said: list[str] = []
        if cells.task.kind in LABELS:
            again = right(rows).mean(axis=1)
            differ = int((np.abs(again - scores(rows)) > _FLAT).sum())
            said += [f"{differ} of {len(again)} scores differ from the stored decisions"] * (
                differ > 0
            )
        # NaN where nothing is claimed
        false = np.abs(rows["claimed"] - left_to_break(rows, cell.setting)) > _NEAR
        same = exact and all(cell.setting.get(k, v) == v for k, v in _AUDITED.items())
        share = float(false.mean()) if same and len(false) else 0.0
        if share:
            said.append(
                f"{int(false.sum())} of {len(false)} scores that the attack claims are not found"
                " again"
            )
        if said:
            status = "warn" if len(said) == 1 and 0 < share <= _OFTEN else "fail"
            found.append(Check(CLAIMED, status, named(cell), "; ".join(said)))
    what = "scores against the stored decisions" + (", and the search's own" if exact else "")
    yield from checked(found, CLAIMED, attacks, what)


def left_to_break(rows: Rows, setting: Mapping[str, Any]) -> Values:
    """Score per row as the search counts it: 0 where its own criterion, if it has one, is met.

    The criterion is that of `palpate.attacks._success`.
    """
    left = scores(rows)
    if "criterion" not in setting:
        return left
    bar = float(setting["bar"])
    if setting["criterion"] == "dice_below":
        return np.where(left < bar, 0.0, left)
    pixels = rows["pixels"]
    left = np.where(pixels > 0, 1 - rows["wrong_pixels"] / np.maximum(pixels, 1), left)
    return np.where(1 - left >= bar - _FLAT, 0.0, left)


def _rises(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    found: list[Check] = []
    known = [c for c in attacks if _climbs(c) and _known(cells.rows(c), "rise").any()]
    for cell in known:
        rows = cells.rows(cell)
        whole = _known(rows, "rise") & (rows["clean_score"] > 0)
        if says_nothing_of_empty_masks(cell):
            whole &= ~without_lesion(rows)
        flat = whole & (scores(rows) > 0) & (rows["rise"] <= _FLAT)
        if flat.sum() > _SOME * whole.sum():
            status = "fail" if flat.sum() > _HALF * whole.sum() else "warn"
            evidence = (
                f"for {int(flat.sum())} of {int(whole.sum())} samples that were right no later"
                " point had a higher loss than the first"
            )
            found.append(Check(RISES, status, named(cell), evidence))
    yield from checked(found, RISES, known, "the loss rose on nearly every sample")


def says_nothing_of_empty_masks(cell: CellRecord) -> bool:
    """Whether the loss has no gradient where the reference is empty, by its formula.

    Exchanged, cross-entropy is minus the mask times the logits and Dice a product with it; Dice in
    the right order has only its smoothing left.
    """
    return bool(cell.setting.get("swap_arguments")) or cell.setting.get("loss") == "dice"


def without_lesion(rows: Rows) -> NDArray[np.bool_]:
    """Rows of masks whose reference is empty; none where that is not recorded."""
    expected = rows.get("region_expected")
    if expected is None or expected.shape[1] == 0:
        return np.zeros(len(rows["sample"]), dtype=bool)
    return (expected == 0).all(axis=1)


def _climbs(cell: CellRecord) -> bool:
    """Whether the attack follows this model's gradients within a budget, in steps that we see."""
    return budget_of(cell) is not None and cell.perturbation not in _OTHERWISE


def _converged(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    """Only samples that still stand could have fallen to more steps."""
    found: list[Check] = []
    known: list[CellRecord] = []
    for cell in attacks:
        rows = cells.rows(cell)
        stands = _known(rows, "late") & (rows["clean_score"] > 0) & (scores(rows) > 0)
        if not _climbs(cell) or not stands.any():
            continue
        known.append(cell)
        late = float(rows["late"][stands].mean())
        if late > _LATE:
            evidence = (
                f"{late:.0%} of the rise of the loss came in the last quarter of the steps, on the"
                f" {int(stands.sum())} samples that still stand"
            )
            found.append(Check(CONVERGED, "warn", named(cell), evidence))
    what = f"at most {_LATE:.0%} of the rise in the last quarter, on samples that still stand"
    yield from checked(found, CONVERGED, known, what)


def _in_range(cells: Cells) -> Iterator[Check]:
    """The frame of every family looks at each image and stops a cell that leaves the range."""
    families = ("attacks", "corruptions", "occlusions")
    found = [
        Check(IN_RANGE, "fail", named(cell), (cell.error or {}).get("message", ""))
        for cell in cells.record.cells
        if (cell.error or {}).get("type") == "BudgetError"
    ]
    yield from checked(found, IN_RANGE, cells.finished(*families), "every image, by its frame")


def _known(rows: Rows, name: str) -> NDArray[np.bool_]:
    return np.isfinite(rows[name])
