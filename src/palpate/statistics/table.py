"""Rows of one kind, with the ways out that a notebook, a script and a shell want."""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from palpate.errors import ConfigError
from palpate.statistics._html import LIMIT, number, table

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

    def to_arrow(self) -> Any:
        """Rows as a `pyarrow.Table`; a column of None alone keeps its type."""
        import pyarrow as pa

        if not self.rows:
            return pa.table({})
        hints = typing.get_type_hints(type(self.rows[0]))
        columns = {
            field.name: [getattr(row, field.name) for row in self.rows]
            for field in dataclasses.fields(self.rows[0])  # pyright: ignore[reportArgumentType]
        }
        return pa.table(
            {n: pa.array(values, type=_arrow_type(hints[n])) for n, values in columns.items()}
        )

    def find(self, **wanted: Any) -> list[RowT]:
        """Rows whose named attributes equal the given values."""
        return [r for r in self.rows if all(getattr(r, k) == v for k, v in wanted.items())]

    def _repr_html_(self) -> str:
        dicts = self.to_dicts()
        rows = [[_text(value) for value in row.values()] for row in dicts[:LIMIT]]
        head = [name.replace("_", " ") for name in (dicts[0] if dicts else ())]
        return table(head, rows, caption=f"{len(self)} rows", left_out=len(self) - len(rows))


def _arrow_type(hint: Any) -> Any:
    """Arrow's type of a number, a text or a list of either; None lets Arrow infer."""
    import pyarrow as pa

    if typing.get_origin(hint) is tuple:
        inner = _arrow_type(typing.get_args(hint)[0])
        return None if inner is None else pa.list_(inner)
    kinds = [k for k in typing.get_args(hint) or (hint,) if k is not type(None)]
    names = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return names.get(kinds[0]) if len(kinds) == 1 else None


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return "" if value is None else str(value)
