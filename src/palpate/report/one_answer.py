"""Accuracy hides a model that gives everyone the most frequent answer; this finds it."""

import orjson

from palpate.report import words
from palpate.statistics.summary import Row, Summary


def belongs(row: Row, model: str) -> bool:
    """Whether a row is about this model, its defence included in the name."""
    return model == (row.target if row.defence == "none" else f"{row.target} + {row.defence}")


def one_answer(model: str, family: str, *, summary: Summary, classes: int) -> str:
    """Say where a model can no longer be told from one that always gives the same answer.

    That is the case where the interval of its balanced accuracy reaches down to 1 / classes while
    that of the same model on clean images does not.

    Args:
        model: name in the tables.
        family: of the disturbances to look at.
        summary: all numbers.
        classes: of how many the data hold a sample.

    Returns:
        The first such setting in the order of the audit in words, with the sensitivity there; empty
        if there is none.
    """
    if classes < 2:
        return ""  # one answer would be right
    rows = [r for r in summary.find(metric="balanced_accuracy") if belongs(r, model)]
    level = 1 / classes
    clean = [r for r in rows if r.family == "none"]
    if not clean or not _above(clean[0], level):
        return ""
    lost = [r for r in rows if r.family == family and r.low is not None and not _above(r, level)]
    if not lost:
        return ""
    row = lost[0]
    setting = words.setting_words(orjson.loads(row.setting))
    said = (
        f"from {words.spaced(row.perturbation)} ({setting}) on, not to be told from a model that"
        f" always gives one answer: balanced accuracy {_number(row)}"
    )
    for seen in summary.find(metric="sensitivity", cell=row.cell):
        said += f", sensitivity {_number(seen)}"
    return said


def _above(row: Row, level: float) -> bool:
    return row.low is not None and row.low > level


def _number(row: Row) -> str:
    value = words.number(row.value, metric=row.metric)
    return f"{value} {words.interval(row.low, row.high, metric=row.metric)}"
