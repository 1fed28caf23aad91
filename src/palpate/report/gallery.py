"""Worst cases as lossless pictures: clean, perturbed, and their difference with its stated gain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palpate.metrics.base import TaskInfo
from palpate.record import CellRecord, Columns, Record
from palpate.report import words
from palpate.report.pictures import Picture, Shown, pictures, saliency_note
from palpate.statistics.cells import Cells
from palpate.statistics.paired import label

_LIMIT = 16  # cards on the page


@dataclass(frozen=True)
class Card:
    """One worst case.

    Attributes:
        title: model and disturbance.
        sample: id of the input.
        case: id of the patient.
        reference: what it really is.
        before: what the model said of the clean image.
        after: what it said of the perturbed one.
        pictures: clean, perturbed, difference.
        saliency: what the maps of the evidence show, or why there are none; empty where none were
            asked for.
    """

    title: str
    sample: str
    case: str
    reference: str
    before: str
    after: str
    pictures: tuple[Picture, ...]
    saliency: str = ""


def gallery(record: Record, *, limit: int = _LIMIT) -> list[Card]:
    """The worst case of each model and disturbance, from the smallest dose that has one.

    Args:
        record: the run.
        limit: cards at most.
    """
    cells = Cells(record)
    chosen: dict[tuple[str, str, str], CellRecord] = {}
    for cell in cells.finished("attacks", "corruptions", "occlusions"):
        key = (label(cell), cell.perturbation, str(cell.setting.get("norm", "")))
        best = chosen.get(key)
        if "sample" in record.images(cell) and (best is None or _dose(cell) < _dose(best)):
            chosen[key] = cell
    return [_card(cells, cell) for cell in list(chosen.values())[:limit]]


def _card(cells: Cells, cell: CellRecord) -> Card:
    images, rows = cells.record.images(cell), cells.rows(cell)
    low, high = cells.record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    sample, trial = str(images["sample"][0]), int(images["trial"][0])
    own = int(np.flatnonzero((rows["sample"] == sample) & (rows["trial"] == trial))[0])
    before = cells.clean_of(cell)
    title = (
        f"{label(cell)} · {words.spaced(cell.perturbation)}, {words.setting_words(cell.setting)}"
    )
    said = "not known"
    if before is not None and (there := np.flatnonzero(before["sample"] == sample)).size:
        said = answer_words(before, int(there[0]), cells.task)
    now = answer_words(rows, own, cells.task)
    return Card(
        title=title,
        sample=sample,
        case=str(rows["case"][own]),
        reference=_reference(rows, own, cells.task),
        before=said,
        after=now,
        pictures=pictures(images, 0, shown=Shown(sample, said, now, (low, high))),
        saliency=saliency_note(images, 0),
    )


def answer_words(rows: Columns | Any, row: int, task: TaskInfo) -> str:
    """What the model said in one row: a class with its probability, labels, or a Dice."""
    if not rows["finite"][row]:
        return "no finite output"
    decision, chances = rows["decision"][row].tolist(), rows["probabilities"][row].tolist()
    if task.kind == "classification" and decision:
        chance = words.number(chances[decision[0]]) if decision[0] < len(chances) else "–"
        return f"{_class(task, decision[0])} ({chance})"
    if task.kind == "multi_label" and decision:
        return _labels(decision, task)
    return f"Dice {float(rows['score'][row]):.3f}"


def _reference(rows: Columns | Any, row: int, task: TaskInfo) -> str:
    reference = rows["reference"][row].tolist()
    if task.kind == "classification" and reference:
        return _class(task, reference[0])
    return _labels(reference, task) if task.kind == "multi_label" else "mask"


def _labels(marks: Sequence[int], task: TaskInfo) -> str:
    named = [_class(task, i) for i, mark in enumerate(marks) if mark == 1]
    return ", ".join(named) or "none of the labels"


def _class(task: TaskInfo, index: int) -> str:
    return task.classes[index] if 0 <= index < len(task.classes) else f"class {index}"


def _dose(cell: CellRecord) -> float:
    dose = words.dose_of(cell.setting)
    value = cell.setting.get(dose) if dose else None
    return float(value) if isinstance(value, int | float) else 0.0
