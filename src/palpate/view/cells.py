"""The cells of a run as a sheet, from the plan alone; what their files say is added on demand."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate.report import words
from palpate.view import samples
from palpate.view.sheet import Column, Sheet, number_column, text_column

DONE: Final = "done"
FAILED: Final = "failed"
DAMAGED: Final = "damaged"
NOT_RUN: Final = "not run"
_STATES: Final = (FAILED, DAMAGED, NOT_RUN, DONE)


@dataclass(frozen=True)
class Brief:
    """What the files of one cell say in short.

    Attributes:
        state: done, failed, damaged or not run.
        problem: the error's first line; empty without one.
        rows: samples times trials.
        right: rows that are right; None for masks, which have no right and wrong.
        broken: rows that got wrong, or whose mask got worse; None for the clean cell.
        lost: rows whose output was not finite.
        pictures: recorded worst cases.
    """

    state: str
    problem: str = ""
    rows: int | None = None
    right: int | None = None
    broken: int | None = None
    lost: int | None = None
    pictures: int | None = None


def brief_of(found: NDArray[np.intp], pictures: int, *, clean: bool, dense: bool) -> Brief:
    """Counts of a finished cell.

    Args:
        found: what became of each row, by its place in `samples.OUTCOMES`.
        pictures: recorded worst cases.
        clean: whether it is a clean cell.
        dense: whether the task is about masks.
    """
    counted = np.bincount(found, minlength=len(samples.OUTCOMES)).tolist()
    count = dict(zip(samples.OUTCOMES, counted, strict=True))
    return Brief(
        DONE,
        "",
        rows=len(found),
        right=None if dense else count[samples.RIGHT],
        broken=None if clean else count[samples.WORSE if dense else samples.BROKEN],
        lost=count[samples.LOST],
        pictures=pictures,
    )


FROM_FILES: Final = frozenset(field.name for field in dataclasses.fields(Brief))
"""Columns that need the files of a cell."""


def plan_sheet(plan: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row per planned cell, without what is in files."""
    doses = {_dose_words(entry["setting"]): _dose_key(entry["setting"]) for entry in plan}
    columns = (
        text_column("key", [entry["key"] for entry in plan]),
        text_column("model", [model_of(e) for e in plan], facet=True, searched=True),
        text_column("family", [_family(e) for e in plan], order=_FAMILIES.index, facet=True),
        text_column(
            "disturbance",
            [disturbance_of(entry) for entry in plan],
            facet=True,
            searched=True,
        ),
        text_column(
            "dose",
            [_dose_words(entry["setting"]) for entry in plan],
            order=doses.__getitem__,
            facet=True,
        ),
        text_column(
            "setting",
            [_rest_words(entry["setting"]) for entry in plan],
            searched=True,
        ),
    )
    return Sheet(columns, len(plan))


def with_briefs(sheet: Sheet, briefs: Sequence[Brief], *, dense: bool) -> Sheet:
    """A sheet of the plan with what the files say.

    Args:
        sheet: of the plan.
        briefs: one per row.
        dense: whether the task is about masks, which get worse instead of wrong.
    """
    codes = np.array([_STATES.index(brief.state) for brief in briefs], dtype=np.int64)
    # all states are a choice, also those that no cell of this page has
    states = Column("state", "state", codes, _STATES, facet=True)
    numbers = (
        ("rows", "rows"),
        *(() if dense else (("right", "right"),)),
        ("broken", samples.WORSE if dense else samples.BROKEN),
        ("lost", samples.LOST),
        ("pictures", "pictures"),
    )
    counts = (
        number_column(name, [_number(getattr(brief, name)) for brief in briefs], title=title)
        for name, title in numbers
    )
    problems = text_column("problem", [brief.problem for brief in briefs])
    return Sheet((*sheet.columns, states, *counts, problems), sheet.total)


def model_of(entry: Mapping[str, Any]) -> str:
    """Name of a model with its defence."""
    defence = entry["defence"]
    return entry["target"] if defence == "none" else f"{entry['target']} + {defence}"


def disturbance_of(entry: Mapping[str, Any]) -> str:
    """Name of a disturbance in words."""
    return "clean" if entry["family"] == "none" else words.spaced(entry["perturbation"])


def title_of(entry: Mapping[str, Any]) -> str:
    """Model, disturbance and setting in words."""
    setting = words.setting_words(entry["setting"])
    named = [model_of(entry), disturbance_of(entry), *([setting] if setting else [])]
    return " · ".join(named)


_FAMILIES: Final = ("clean", *words.FAMILIES)


def _family(entry: Mapping[str, Any]) -> str:
    family = str(entry["family"])
    return family if family in words.FAMILIES else _FAMILIES[0]


def _dose_words(setting: Mapping[str, Any]) -> str:
    name = words.dose_of(setting)
    return f"{words.spaced(name)} {words.dose_text(name, setting[name])}" if name else "–"


def _rest_words(setting: Mapping[str, Any]) -> str:
    """The setting without its dose, which has a column of its own."""
    said = words.setting_words(setting)
    return said.partition(", ")[2] if words.dose_of(setting) else said


def _dose_key(setting: Mapping[str, Any]) -> tuple[str, float, str]:
    name = words.dose_of(setting) or ""
    value = setting.get(name)
    number = float(value) if isinstance(value, int | float) else np.inf
    return name, number, str(value)


def _number(value: int | None) -> float:
    return np.nan if value is None else float(value)
