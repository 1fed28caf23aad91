"""Rows of one kind, with the ways out that a notebook, a script and a shell want."""

import dataclasses
import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from palpate.errors import ConfigError

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Table(Generic[RowT]):
    """Rows, all of one dataclass.

    Attributes:
        rows: in their printed order.
    """

    rows: tuple[RowT, ...]

    def __iter__(self) -> Iterator[RowT]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Rows as plain data, ready for JSON."""
        return [dataclasses.asdict(row) for row in self.rows]  # pyright: ignore[reportArgumentType]

    def to_pandas(self) -> Any:
        """Rows as a `pandas.DataFrame`.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("to_pandas: expected pandas; pip install pandas") from None
        return pd.DataFrame(self.to_dicts())

    def find(self, **wanted: Any) -> list[RowT]:
        """Rows whose named attributes equal the given values."""
        return [r for r in self.rows if all(getattr(r, k) == v for k, v in wanted.items())]

    def _repr_html_(self) -> str:
        dicts = self.to_dicts()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in (dicts[0] if dicts else ()))
        body = "".join(
            "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row.values()) + "</tr>"
            for row in dicts
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else html.escape(str(value))
