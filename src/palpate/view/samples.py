"""The samples of one cell as a sheet: what was there, what the model said, what became of it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate.metrics.base import DENSE, Rows, TaskInfo, right
from palpate.record import CellRecord
from palpate.statistics.strata import site_name, sites_of
from palpate.view.sheet import Column, Sheet, coded_column, number_column, text_column

RIGHT: Final = "right"
BROKEN: Final = "broken"
WRONG: Final = "wrong, as when clean"
WRONG_CLEAN: Final = "wrong"
UNKNOWN: Final = "wrong, clean answer unknown"
LOST: Final = "non-finite"
WORSE: Final = "worse than clean"
HELD: Final = "not worse"
ALONE: Final = "not compared with clean"
OUTCOMES: Final = (LOST, BROKEN, WORSE, WRONG, WRONG_CLEAN, UNKNOWN, ALONE, HELD, RIGHT)
"""Every word for what became of a row, the worst first."""

COMPARED: Final = ("sample", "reference", "decision", "score", "finite")
"""Columns of a cell that `outcomes` reads; a fraction of the time that all take."""

_NO_SITE: Final = "unknown"


def outcomes(rows: Rows, family: str, *, task: TaskInfo) -> NDArray[np.intp]:
    """What became of each row: its place in `OUTCOMES`.

    A sample is broken where a label that was right on the clean image is wrong now; masks have no
    right and wrong, so their score is compared.

    Args:
        rows: columns of one cell beside those of its clean cell.
        family: of the disturbance; "none" for the clean cell.
        task: of the dataset.
    """
    code = {word: place for place, word in enumerate(OUTCOMES)}
    known, clean = ~np.isnan(rows["clean_score"]), family == "none"
    if task.kind in DENSE:
        fell = rows["score"].astype(np.float64) < rows["clean_score"]
        found = np.where(fell, code[WORSE], code[HELD])
        found = np.where(known & (not clean), found, code[ALONE])
    else:
        now, before = right(rows), right(rows, "clean_")
        wrong = code[WRONG_CLEAN if clean else WRONG]
        found = np.where(known, wrong, code[UNKNOWN])
        found[now.all(axis=1)] = code[RIGHT]
        if not clean:
            found[known & (before & ~now).any(axis=1)] = code[BROKEN]
    return np.where(rows["finite"], found, code[LOST])


def samples_sheet(
    rows: Rows, cell: CellRecord, *, task: TaskInfo, pictured: Mapping[tuple[str, int], int]
) -> Sheet:
    """One row per sample and trial; columns that say nothing in this cell are left out.

    Args:
        rows: columns of the cell beside those of its clean cell.
        cell: what it is.
        task: of the dataset.
        pictured: place of a sample and trial among the recorded worst cases.
    """
    columns = [
        *_who(rows, cell),
        *_answers(rows, cell.family, task=task),
        *_numbers(rows, cell.family, task=task),
    ]
    if cell.setting.get("norm") == "l0":
        columns.append(number_column("l0", rows["l0"], title="values changed"))
    if pictured:
        pairs = zip(rows["sample"].tolist(), rows["trial"].tolist(), strict=True)
        places = [pictured.get(pair, np.nan) for pair in pairs]
        columns.append(number_column("picture", places))
    return Sheet(tuple(columns), len(rows["sample"]))


def _who(rows: Rows, cell: CellRecord) -> Iterator[Column]:
    yield text_column("sample", rows["sample"], searched=True)
    if (rows["case"] != rows["sample"]).any():
        yield text_column("case", rows["case"], searched=True)
    if (rows["site"] != "").any():
        named = np.where(rows["site"] == "", _NO_SITE, rows["site"])
        yield text_column("site", named, facet=True)
    if "prompt" in rows and (rows["prompt"] != "").any():
        yield text_column("prompt", rows["prompt"], facet=True, searched=True)
    if (rows["trial"] > 0).any():
        yield number_column("trial", rows["trial"])
    sites = [site_name(note) if sites_of(note) else "" for note in cell.notes]
    if any(sites) and len(sites) > int(rows["trial"].max(initial=0)):
        yield text_column("fault", np.array(sites)[rows["trial"]], searched=True)


def _answers(rows: Rows, family: str, *, task: TaskInfo) -> Iterator[Column]:
    if task.kind not in DENSE:
        yield _class_column("reference", rows["reference"], title="class", task=task)
        if family != "none":
            clean = rows["clean_decision"]
            yield _class_column("before", clean, title="clean answer", task=task)
        yield _class_column("answer", rows["decision"], title="answer", task=task)
    yield coded_column("outcome", outcomes(rows, family, task=task), OUTCOMES)
    if family == "faults":
        verdict = rows["verdict"]
        said = np.where(verdict == "masked", verdict, np.char.upper(verdict))
        yield text_column("verdict", said, facet=True)
    if (rows["status"] != "ok").any():
        yield text_column("status", rows["status"], title="could act", facet=True)


def _class_column(name: str, labels: NDArray[Any], *, title: str, task: TaskInfo) -> Column:
    """Class or label names; rows without a decision say so."""
    if labels.shape[1] == 0:
        return text_column(name, np.full(len(labels), "none"), title=title, facet=True)
    distinct, codes = np.unique(labels, axis=0, return_inverse=True)
    said = [_said(row, task) for row in distinct.tolist()]
    words = tuple(dict.fromkeys(said))  # two classes may have one name
    place = np.array([words.index(word) for word in said])
    return coded_column(name, place[codes.reshape(-1)], words, title=title)


def _said(labels: list[int], task: TaskInfo) -> str:
    if all(label < 0 for label in labels):
        return "none"
    if task.kind == "multi_label":
        return ", ".join(_class(task, i) for i, on in enumerate(labels) if on == 1) or "no label"
    return _class(task, labels[0])


def _class(task: TaskInfo, index: int) -> str:
    return task.classes[index] if 0 <= index < len(task.classes) else f"class {index}"


def _numbers(rows: Rows, family: str, *, task: TaskInfo) -> Iterator[Column]:
    if task.kind == "classification":
        yield number_column("chance", _chances(rows), title="probability", form="score")
    else:
        score = rows["score"].astype(np.float64)
        title = "Dice" if task.kind in DENSE else "labels right"
        yield number_column("score", score, title=title, form="score")
        if family != "none":
            yield number_column("loss", rows["clean_score"] - score, form="score")
    for name, title in (("linf", "L∞"), ("l2", "L2")):
        if np.nan_to_num(rows[name]).any():
            yield number_column(name, rows[name], title=title, form="change")


def _chances(rows: Rows) -> NDArray[np.float64]:
    """Probability of the class that was decided."""
    chances, decided = rows["probabilities"], rows["decision"]
    if not chances.shape[1] or not decided.shape[1]:
        return np.full(len(chances), np.nan)
    first = decided[:, 0]
    known = (first >= 0) & (first < chances.shape[1])
    found = chances[np.arange(len(first)), np.where(known, first, 0)].astype(np.float64)
    return np.where(known, found, np.nan)
