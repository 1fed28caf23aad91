"""Two runs compared: for the terminal, as plain data, and as the report's twin."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from palpate.report import words
from palpate.report._template import write_page
from palpate.statistics._change import GOOD, Change
from palpate.statistics.compare import Comparison

CHIPS: Final = {
    "better": "pass",
    "not worse than the margin": "pass",
    "same": "not-run",
    "cannot tell": "cannot-judge",
    "worse, within the margin": "warn",
    "worse": "fail",
}
"""Verdicts, and the class of the style sheet that draws each."""

_LINES: Final = 12
_NAMES: Final = 6


def render(found: Comparison, path: Path) -> Path:
    """Write the comparison as one HTML file without network or JavaScript.

    Args:
        found: the comparison.
        path: of the HTML file.

    Returns:
        The path.

    Raises:
        StoreError: the file cannot be written.
    """
    content = {
        "found": found,
        "headline": headline(found),
        "chips": CHIPS,
        "confidence": f"{found.confidence * 100:g} %",
        "cell": cell_words,
        "metric_name": words.metric_name,
        "changed": [row for row in found.rows if row.gains or row.losses],
        "p_value": p_value,
    }
    return write_page(path, "compare.html", content)


def plain(found: Comparison) -> dict[str, Any]:
    """Everything as data for JSON."""
    return {
        "confidence": found.confidence,
        "margin": found.margin,
        "runs": list(found.runs),
        "holds": found.holds if found.margin is not None else None,
        "cells": found.to_dicts(),
        "apart": [asdict(apart) for apart in found.apart],
        "notes": list(found.notes),
    }


def headline(found: Comparison) -> str:
    """The finding in one sentence."""
    counted = Counter(row.verdict for row in found.rows)
    if not counted:
        return "No cell could be compared."
    parts = [f"{counted[verdict]} {verdict}" for verdict in CHIPS if counted[verdict]]
    text = f"Of {words.plural(len(found), 'cell')} compared: {'; '.join(parts)}."
    if found.margin is None:
        return text
    margin = words.points(found.margin).removeprefix("+")
    doubtful = sum(row.verdict not in GOOD for row in found.rows)
    unfinished = sum(apart.unfinished for apart in found.apart)
    if doubtful:
        text += f" A loss of {margin} or more is not excluded in {doubtful} of them."
    else:
        text += f" A loss of {margin} or more is excluded in every one."
    return f"{text} Without a result: {unfinished}." if unfinished else text


def terminal_table(found: Comparison) -> list[list[str]]:
    """Head and rows for a terminal."""
    percent = f"{found.confidence * 100:g} %"
    head = ["model", "disturbance", "metric", "before", "after", f"difference, {percent} interval"]
    lines = [[*head, "cases better / worse", "p (Holm)", "verdict"]]
    for row in found.rows:
        faults = row.family == "faults"
        lines.append(
            [
                row.target,
                cell_words(row),
                words.metric_name(row.metric),
                words.number(row.before),
                words.number(row.after),
                f"{words.points(row.value)} {words.interval(row.low, row.high)}",
                "–" if faults else f"{row.gains} / {row.losses}",
                p_value(row),
                row.verdict,
            ]
        )
    return lines


def terminal_lines(found: Comparison) -> Iterator[str]:
    """What belongs below the table: the finding, the cases that changed, what has no partner."""
    worse = [row for row in found.rows if row.verdict.startswith("worse") and row.lost]
    for row in worse[:_LINES]:
        yield f"lost, {row.target}, {cell_words(row)}: {_some(row.lost, row.losses)}"
    if len(worse) > _LINES:
        yield f"and cases lost in {len(worse) - _LINES} more cells"
    for apart in found.apart[:_LINES]:
        yield f"not compared ({apart.side}): {apart.cell}: {apart.why}"
    if len(found.apart) > _LINES:
        yield f"and {len(found.apart) - _LINES} more not compared"
    for note in found.notes:
        yield f"note: {note}"
    yield headline(found)


def cell_words(row: Change) -> str:
    """Disturbance and setting in words."""
    if row.family == "none":
        return "clean"
    setting = words.setting_words(orjson.loads(row.setting))
    return ", ".join(part for part in (words.spaced(row.perturbation), setting) if part)


def p_value(row: Change) -> str:
    """The adjusted p-value for print."""
    if row.verdict == "same":
        return "–"
    return "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"


def _some(names: tuple[str, ...], count: int) -> str:
    shown = names[:_NAMES]
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"{', '.join(shown)}{more}"
