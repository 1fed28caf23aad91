"""A table that is filtered, sorted and paged; the script of a static folder does exactly the same.

Texts are kept as numbers into a sorted list of words, so both sides compare numbers only and agree
on every order.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate.errors import UsageError

LONGEST: Final = 500  # rows of one page
_FACET: Final = 400  # words worth offering as a choice


class QueryError(UsageError):
    """A request names a column that is not there, or a number that is none."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: key.
        title: heading.
        values: (rows,) numbers, NaN for none; of a text column, places in `words`.
        words: of a text column, sorted as a reader expects; None for numbers.
        form: how a number is printed: "count", "score" or "change".
        facet: whether one word of it may be chosen.
        searched: whether the text search looks here.
    """

    name: str
    title: str
    values: NDArray[Any]
    words: tuple[str, ...] | None = None
    form: str = "count"
    facet: bool = False
    searched: bool = False

    def plain(self) -> list[Any]:
        """Values as they are shown: words, numbers, or None."""
        if self.words is not None:
            return [self.words[code] for code in self.values.tolist()]
        return [None if value != value else value for value in self.values.tolist()]


@dataclass(frozen=True)
class Query:
    """What a reader asks of a sheet.

    Attributes:
        text: must be part of a searched column; any case.
        chosen: word per column.
        sort: column; empty for the order of the record.
        down: largest first.
        start: first row of the page.
        count: rows of the page.
    """

    text: str = ""
    chosen: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""
    down: bool = False
    start: int = 0
    count: int = 50

    @property
    def names(self) -> set[str]:
        """Columns that decide which rows come, and in which order."""
        return {*self.chosen, *((self.sort,) if self.sort else ())}


@dataclass(frozen=True)
class Sheet:
    """Columns of equal length.

    Attributes:
        columns: in the order in which they are shown.
        total: how many rows.
    """

    columns: tuple[Column, ...]
    total: int

    def select(self, query: Query) -> NDArray[np.intp]:
        """Rows that a query asks for, in its order; equals keep the order of the record.

        Raises:
            QueryError: no such column.
        """
        keep = np.ones(self.total, dtype=bool)
        for name, word in query.chosen.items():
            keep &= self._is(self._column(name), word)
        if needle := query.text.strip().lower():
            found = np.zeros(self.total, dtype=bool)
            for column in self.columns:
                if column.searched:
                    hits = [needle in word.lower() for word in column.words or ()]
                    found |= np.array(hits, dtype=bool)[column.values] if hits else False
            keep &= found
        rows = np.flatnonzero(keep)
        if not query.sort:
            return rows
        keys = self._column(query.sort).values[rows].astype(np.float64)
        # NaN stays last in either direction
        return rows[np.argsort(-keys if query.down else keys, kind="stable")]

    def page(self, query: Query) -> dict[str, Any]:
        """One page of what a query asks for.

        Raises:
            QueryError: no such column.
        """
        rows = self.select(query)
        return self.shown(rows, query)

    def shown(self, rows: NDArray[np.intp], query: Query) -> dict[str, Any]:
        """The page of these rows that a query asks for, as plain data."""
        part = rows[query.start : query.start + min(query.count, LONGEST)]
        values = [column.plain() for column in self.take(part).columns]
        return {
            "total": self.total,
            "matched": len(rows),
            "start": query.start,
            "columns": [_head(column) for column in self.columns],
            "rows": [list(row) for row in zip(*values, strict=True)],
        }

    def take(self, rows: NDArray[np.intp]) -> "Sheet":
        """Some rows."""
        picked = tuple(replace(column, values=column.values[rows]) for column in self.columns)
        return Sheet(picked, len(rows))

    def plain(self) -> dict[str, Any]:
        """Everything, for a static folder: words once, codes per row."""
        columns = [
            {**_head(c), "words": c.words, "values": _numbers(c.values)} for c in self.columns
        ]
        return {"total": self.total, "columns": columns}

    def _column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        known = ", ".join(column.name for column in self.columns)
        raise QueryError(f"expected one of the columns {known}, got {name!r}")

    def _is(self, column: Column, word: str) -> NDArray[np.bool_]:
        if column.words is None:
            raise QueryError(f"expected a text column to choose from, got {column.name!r}")
        if word not in column.words:
            return np.zeros(self.total, dtype=bool)
        return column.values == column.words.index(word)


def text_column(
    name: str,
    values: Sequence[str] | NDArray[Any],
    *,
    title: str = "",
    order: Callable[[str], Any] | None = None,
    facet: bool = False,
    searched: bool = False,
) -> Column:
    """A column of texts, in natural order unless another is given (s2 comes before s10).

    The title is the name unless another is given.
    """
    found, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    words = found.tolist()
    places = sorted(range(len(words)), key=lambda i: (order or natural)(words[i]))
    rank = np.empty(len(words), dtype=np.int64)
    rank[places] = np.arange(len(words))
    in_order = tuple(words[i] for i in places)
    return Column(name, title or name, rank[codes], in_order, facet=facet, searched=searched)


def coded_column(
    name: str, codes: NDArray[np.integer[Any]], words: tuple[str, ...], *, title: str = ""
) -> Column:
    """A column of few known words to choose from; those that do not occur are left out."""
    used = np.unique(codes)
    rank = np.zeros(len(words), dtype=np.int64)
    rank[used] = np.arange(len(used))
    kept = tuple(words[code] for code in used.tolist())
    return Column(name, title or name, rank[codes], kept, facet=True)


def number_column(name: str, values: Any, *, title: str = "", form: str = "count") -> Column:
    """A column of numbers; None, NaN and the infinities are no number."""
    numbers = np.asarray(values, dtype=np.float64)
    return Column(name, title or name, np.where(np.isfinite(numbers), numbers, np.nan), form=form)


def natural(text: str) -> list[Any]:
    """Key that sorts numbers inside texts by their size."""
    parts: list[Any] = re.split(r"([0-9]{1,18})", text)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)]


def _head(column: Column) -> dict[str, Any]:
    """What the page needs to draw a column; the words only where they are a choice."""
    words = column.words or ()
    offered = list(words) if column.facet and 1 < len(words) <= _FACET else []
    kind = "text" if column.words is not None else column.form
    return {
        "name": column.name,
        "title": column.title,
        "kind": kind,
        "choices": offered,
        "searched": column.searched,
    }


def _numbers(values: NDArray[Any]) -> NDArray[Any] | list[Any]:
    """Whole numbers without a point, the rest as long as single precision needs."""
    if values.dtype.kind == "i":
        return values
    return [None if v != v else int(v) if v == int(v) else float(f"{v:.9g}") for v in values]
