"""A run for other programs: the summary's rows as Parquet, CSV or JSON, the checks as JUnit."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import orjson
import pyarrow.parquet as pq

from palpate.errors import UnknownComponent, nearest
from palpate.record import Record, write_atomic
from palpate.report.junit import check_cases, junit
from palpate.statistics.checks import checks
from palpate.statistics.origin import origin
from palpate.statistics.summary import summarise

NAMES: Final[Mapping[str, str]] = {
    "parquet": "summary.parquet",
    "csv": "summary.csv",
    "json": "summary.json",
    "junit": "checks.xml",
}
"""Formats, and the file in the run directory that each is written to by default."""


def export(record: Record, form: str, *, path: Path | None = None) -> Path:
    """Write a run for other programs.

    Args:
        record: the run, finished or not.
        form: "parquet" or "csv": one row per target, defence, cell and metric; "json": these rows,
            the checks and where they come from; "junit": the checks of the audit on itself.
        path: of the file; in the run directory by default.

    Returns:
        The path.

    Raises:
        UnknownComponent: no such format.
        StoreError: the file cannot be written.
    """
    if form not in _FORMS:
        raise UnknownComponent(f"no format named {form!r}; {nearest(form, _FORMS)}")
    path = record.folder / NAMES[form] if path is None else path
    write_atomic(path, _FORMS[form](record))
    return path


def _parquet(record: Record) -> bytes:
    summary = summarise(record)
    source = origin(record) | {"confidence": summary.confidence}
    table = summary.to_arrow()
    table = table.replace_schema_metadata({"palpate": orjson.dumps(source)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _csv(record: Record) -> bytes:
    rows = summarise(record).to_dicts()
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _json(record: Record) -> bytes:
    summary = summarise(record)
    data = {
        "run": origin(record) | {"confidence": summary.confidence},
        "summary": summary.to_dicts(),
        "checks": checks(record, summary=summary).to_dicts(),
    }
    return orjson.dumps(data, option=orjson.OPT_INDENT_2)


def _junit(record: Record) -> bytes:
    return junit(f"palpate checks {record.folder}", check_cases(checks(record).rows))


_FORMS: Final[Mapping[str, Callable[[Record], bytes]]] = {
    "parquet": _parquet,
    "csv": _csv,
    "json": _json,
    "junit": _junit,
}
