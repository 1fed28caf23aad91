"""Tables for a notebook: static HTML with interval bars drawn in place; no script, no style sheet.

Colours are the notebook's own (`currentColor`), so that dark themes work.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

LIMIT: Final = 200
"""Rows shown; a page of thousands is no longer read."""

_WIDTH: Final = 132
_HEIGHT: Final = 16
_INSET: Final = 4
_CELL: Final = "text-align:left;vertical-align:middle"


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already.

    Attributes:
        text: escaped by whoever made it.
    """

    text: str


@dataclass(frozen=True)
class Scale:
    """The axis of a column of bars.

    Attributes:
        low: value at the left end.
        high: value at the right end.
    """

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float | None], *, symmetric: bool = False) -> "Scale":
        """An axis that holds zero and every value; 0 to 1 for shares, or as far either way."""
        known = [v for v in values if v is not None and math.isfinite(v)]
        if symmetric:
            reach = max((abs(v) for v in known), default=0.0) or 1.0
            return cls(-reach, reach)
        return cls(min([0.0, *known]), max([1.0, *known]))

    def place(self, value: float) -> float:
        """Where a value lies, in pixels from the left."""
        share = (value - self.low) / (self.high - self.low)
        return round(_INSET + share * (_WIDTH - 2 * _INSET), 1)


def bar(value: float | None, ends: tuple[float | None, float | None], scale: Scale) -> Markup:
    """An interval as a line with a dot on it; nothing where there is no finite value."""
    if value is None or not math.isfinite(value):
        return Markup("")
    middle = _HEIGHT / 2
    zero = scale.place(0.0)
    low, high = ends
    drawn = [
        f'<line x1="{zero}" y1="0" x2="{zero}" y2="{_HEIGHT}" stroke="currentColor" opacity="0.3"/>'
    ]
    label = number(value)
    if low is not None and high is not None:
        left, right = scale.place(low), scale.place(high)
        drawn.append(
            f'<line x1="{left}" y1="{middle}" x2="{right}" y2="{middle}" stroke="currentColor"'
            ' stroke-width="3" opacity="0.55"/>'
        )
        label += f", interval {number(low)} to {number(high)}"
    drawn.append(f'<circle cx="{scale.place(value)}" cy="{middle}" r="3.5" fill="currentColor"/>')
    return Markup(
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str, left_out: int = 0
) -> str:
    """A table; whatever is not `Markup` is escaped.

    Args:
        head: of the columns.
        rows: as long as the head.
        caption: what the table shows.
        left_out: rows that were not handed over, said below the table.
    """
    titles = "".join(f'<th scope="col" style="{_CELL}">{_cell(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(_data, row))}</tr>" for row in rows)
    more = f"<p>{left_out} more rows; to_pandas() has them all.</p>" if left_out else ""
    return (
        f'<table><caption style="text-align:left;caption-side:top">{_cell(caption)}</caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def paragraph(text: str) -> str:
    """Escaped text as a paragraph; nothing for none."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def number(value: float | None) -> str:
    """Three decimals, more where these would print a small number as nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.3f}" if abs(value) >= 5e-4 or value == 0 else f"{value:.1e}"
    return text.replace("-", "−")


def ends(low: float | None, high: float | None) -> str:
    """Both ends of an interval, or that there is none."""
    if low is None or high is None:
        return "no interval"
    return f"[{number(low)},\u00a0{number(high)}]"


def _data(value: Any) -> str:
    return f'<td style="{_CELL}">{_cell(value)}</td>'


def _cell(value: Any) -> str:
    return value.text if isinstance(value, Markup) else html.escape(str(value))
