"""Rows of text for the terminal and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from palpate.report import words
from palpate.report.ladders import Ladder, model_of, models_of, several_attacks
from palpate.statistics.summary import Row, Summary

_TERMINAL = {
    "none": ("accuracy", "auc", "dice"),
    "attacks": ("robust_accuracy", "dice"),
    "corruptions": ("accuracy", "dice"),
    "occlusions": ("accuracy", "dice"),
    "faults": ("sdc_rate", "due_rate"),
}


@dataclass(frozen=True)
class Entry:
    """One number in a table.

    Attributes:
        value: for print.
        interval: for print; the note where there is no value.
        shade: 0 (as good as it gets) to 1, for the heat map; None for no shade.
        title: the whole story in words.
    """

    value: str
    interval: str
    shade: float | None
    title: str


@dataclass(frozen=True)
class Grid:
    """A table of entries.

    Attributes:
        caption: what it shows.
        corner: heading of the row labels.
        columns: headings.
        rows: label and entries; None where nothing was run.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry | None, ...]], ...]


def terminal_table(summary: Summary) -> list[list[str]]:
    """Head and rows for a terminal: one line per model, disturbance and main metric.

    Args:
        summary: of the run.
    """
    percent = f"{summary.confidence * 100:g} %"
    head = ["model", "disturbance", "setting", "metric", "value", f"{percent} interval", "units"]
    lines = [head]
    for row in summary.rows:
        failed = row.note.startswith("failed")
        if row.metric not in _TERMINAL[row.family] and not failed:
            continue
        lines.append(
            [
                model_of(row),
                "clean" if row.family == "none" else words.spaced(row.perturbation),
                _short_setting(row),
                words.metric_name(row.metric),
                words.number(row.value, metric=row.metric) if row.value is not None else row.note,
                words.interval(row.low, row.high, metric=row.metric)
                if row.value is not None
                else "",
                words.count(row.units) if row.value is not None else "",
            ]
        )
    return lines


def entry(row: Row | None, *, shaded: bool = True) -> Entry | None:
    """One number of the summary as a table entry; None where there is no row."""
    if row is None:
        return None
    where = f"{model_of(row)}, {words.spaced(row.perturbation)} {_short_setting(row)}".strip()
    if row.value is None:
        return Entry("–", row.note or row.method, None, f"{where}: {row.note or row.method}")
    value = words.number(row.value, metric=row.metric)
    ends = words.interval(row.low, row.high, metric=row.metric)
    title = (
        f"{where}: {words.metric_name(row.metric)} {value} {ends}, {row.method},"
        f" {words.plural(row.n, 'row')} worth {words.count(row.units)} units"
    )
    note = f"; {row.note}" if row.note else ""
    shade = min(1.0, max(0.0, 1 - row.value)) if shaded else None
    return Entry(value, ends, shade, title + note)


def ladder_grid(ladders: Sequence[Ladder], caption: str) -> Grid:
    """Heat map of one dose scale: a row per disturbance and model, a column per dose.

    Args:
        ladders: of one family and one kind of dose.
        caption: of the table.
    """
    doses = {text: value for ladder in ladders for value, text in ladder.doses}
    columns = sorted(doses, key=lambda t: (isinstance(doses[t], str), doses[t] or 0))
    rows: list[tuple[str, tuple[Entry | None, ...]]] = []
    for ladder in ladders:
        for model, line in ladder.lines.items():
            place = {t: r for (_, t), r in zip(ladder.doses, line, strict=True)}
            cells = (ladder.clean[model], *(place.get(c) for c in columns))
            rows.append((f"{ladder.title} · {model}", tuple(entry(r) for r in cells)))
    dose = words.dose_title(ladders[0].dose)
    heads = tuple(f"{dose} {c}" if ladders[0].dose else c for c in columns)
    return Grid(caption, "disturbance · model", ("clean", *heads), tuple(rows))


def overview(ladders: Sequence[Ladder], summary: Summary) -> Grid:
    """Heat map of model x disturbance: what is left at the strongest dose tested.

    Args:
        ladders: all of the run.
        summary: of the run.
    """
    models = models_of(summary)
    rows: list[tuple[str, tuple[Entry | None, ...]]] = []
    if ladders:
        clean = ladders[0].clean
        rows.append(("clean", tuple(entry(clean[m]) for m in models)))
    for ladder in ladders:
        if not several_attacks(ladder):
            continue
        dose = f", {words.dose_title(ladder.dose)} {ladder.doses[-1][1]}" if ladder.dose else ""
        rows.append((f"{ladder.title}{dose}", tuple(entry(ladder.lines[m][-1]) for m in models)))
    metric = "Dice" if ladders and ladders[0].metric == "dice" else "share right"
    caption = f"What is left at the strongest dose tested: {metric} with interval"
    return Grid(caption, "disturbance", tuple(models), tuple(rows))


def every_number(summary: Summary, family: str) -> Grid:
    """All metrics of all cells of one family, a row per cell.

    Args:
        summary: of the run.
        family: "none" for the clean cells.
    """
    rows = [r for r in summary.rows if r.family == family]
    metrics = list(dict.fromkeys(r.metric for r in rows))
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((model_of(row), row.perturbation, row.setting), {})[row.metric] = row
    body: list[tuple[str, tuple[Entry | None, ...]]] = []
    for (model, perturbation, setting), found in lines.items():
        words_of = words.setting_words(orjson.loads(setting))
        name = words.spaced(perturbation) if family != "none" else "clean"
        label = " · ".join(part for part in (model, name, words_of) if part)
        body.append((label, tuple(entry(found.get(m), shaded=False) for m in metrics)))
    title = "Clean" if family == "none" else words.FAMILIES[family]
    heads = tuple(words.metric_name(m) for m in metrics)
    return Grid(f"{title}: every metric with interval", "cell", heads, tuple(body))


def _short_setting(row: Row) -> str:
    setting = orjson.loads(row.setting)
    keep = (*words.DOSES, *words.FAULT_DOSES, "norm", "kind", "scope", "attacks")
    return words.setting_words({k: v for k, v in setting.items() if k in keep})
