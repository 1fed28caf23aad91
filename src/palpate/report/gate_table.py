"""Gates for a terminal and for a test's message."""

from collections.abc import Sequence

from palpate.report import words
from palpate.statistics.gates import Judgement


def gate_table(found: Judgement) -> list[list[str]]:
    """Head and rows, one per gate and cell."""
    rows = [["status", "gate", "cell", "evidence"]]
    rows += [[row.status, row.gate, row.cell or "–", row.evidence] for row in found.rows]
    return rows


def gate_headline(found: Judgement) -> str:
    """The outcome in one sentence."""
    failed = sum(row.status == "fail" for row in found.rows)
    text = f"gates: {len(found) - failed} passed, {failed} failed"
    if found.unfinished:
        text += (
            f"; incomplete: {words.plural(len(found.unfinished), 'planned cell')} without a result"
        )
    return text


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as plain text in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
