"""How a run, a summary and a comparison look in a notebook."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from palpate.statistics._check import fraction
from palpate.statistics._html import LIMIT, Scale, bar, ends, number, paragraph, table

if TYPE_CHECKING:
    from palpate.record import Record
    from palpate.statistics._check import Check
    from palpate.statistics.compare import Comparison
    from palpate.statistics.summary import Row, Summary
    from palpate.statistics.table import Table


def run_html(record: "Record", summary: "Summary", checks: "Table[Check]") -> str:
    """Where a run stands, the checks that failed, and its summary."""
    manifest = record.manifest
    done = sum(cell.status == "ok" for cell in record.cells)
    models = ", ".join(target["label"] for target in manifest["targets"])
    data = manifest["dataset"]
    text = (
        f"{data['label']}, {data['samples']} samples; {models};"
        f" {done} of {len(manifest['plan'])} cells finished; {record.folder}"
    )
    lines = [text]
    failed = [check for check in checks if check.status == "fail"]
    if failed:
        first = "; ".join(f"{c.check} ({c.cell or 'whole run'}): {c.evidence}" for c in failed[:3])
        lines.append(f"{len(failed)} failed checks of the audit on itself, such as {first}")
    return "".join(map(paragraph, lines)) + summary_html(summary)


def summary_html(summary: "Summary") -> str:
    """A summary as a table, a bar per row; the axis of a metric is the same in all its rows."""
    scales = {
        metric: Scale.around(
            v for r in summary.rows if r.metric == metric for v in (r.value, r.low, r.high)
        )
        for metric in {row.metric for row in summary.rows}
    }
    percent = f"{summary.confidence * 100:g} % interval"
    head = ("model", "disturbance", "setting", "metric", "value", "", percent, "units", "note")
    rows = [
        (
            row.target if row.defence == "none" else f"{row.target} + {row.defence}",
            "clean" if row.family == "none" else row.perturbation.replace("_", " "),
            setting_text(orjson.loads(row.setting)),
            row.metric,
            number(row.value),
            bar(row.value, (row.low, row.high), scales[row.metric]),
            "" if row.value is None else ends(row.low, row.high),
            "" if row.value is None else f"{row.units:g}",
            row.note,
        )
        for row in summary.rows[:LIMIT]
    ]
    caption = f"{len(summary)} numbers with intervals; {_axes(summary.rows, scales)}"
    return table(head, rows, caption=caption, left_out=len(summary) - len(rows))


def comparison_html(found: "Comparison") -> str:
    """A comparison as a table, with what could not be compared below it."""
    scale = Scale.around((v for r in found.rows for v in (r.value, r.low, r.high)), symmetric=True)
    percent = f"{found.confidence * 100:g} % interval"
    head = (
        "model",
        "disturbance",
        "setting",
        "metric",
        "before",
        "after",
        "difference",
        "",
        percent,
        "p (Holm)",
        "verdict",
    )
    rows = [
        (
            row.target,
            "clean" if row.family == "none" else row.perturbation.replace("_", " "),
            setting_text(orjson.loads(row.setting)),
            row.metric,
            number(row.before),
            number(row.after),
            number(row.value),
            bar(row.value, (row.low, row.high), scale),
            ends(row.low, row.high),
            "–" if row.verdict == "same" else number(row.p_holm),
            row.verdict,
        )
        for row in found.rows[:LIMIT]
    ]
    caption = (
        f"After minus before in {len(found)} cells; bars from {number(scale.low)} to"
        f" {number(scale.high)}, the thin line is no difference"
    )
    apart = [f"{a.side}: {a.cell}: {a.why}" for a in found.apart]
    more = f"; and {len(apart) - 10} more" if len(apart) > 10 else ""
    below = f"Not compared: {'; '.join(apart[:10])}{more}" if apart else ""
    shown = table(head, rows, caption=caption, left_out=len(found) - len(rows))
    return shown + "".join(paragraph(note) for note in found.notes) + paragraph(below)


def _axes(rows: "Sequence[Row]", scales: dict[str, Scale]) -> str:
    other = [
        f"{name} {number(scales[name].low)} to {number(scales[name].high)}"
        for name in dict.fromkeys(row.metric for row in rows)
        if (scales[name].low, scales[name].high) != (0.0, 1.0)
    ]
    return "bars from 0 to 1" + (f" (but {', '.join(other)})" if other else "")


def setting_text(setting: Mapping[str, Any]) -> str:
    """Parameters with their values; what is None, empty or False is left out."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_value(value)}"
        for name, value in setting.items()
        if value not in (None, "", [], (), {}) and value is not False
    )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return fraction(value)
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
