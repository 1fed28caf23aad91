"""Versioned rows of what happened: one JSON file per cell, one Parquet file per cell's samples.

A run directory holds ``run.json`` (manifest), ``cells/<key>.json``, ``samples/<key>.parquet``,
``images/<key>.npz`` (exact float arrays of the worst cases) and the report. The cell file is the
truth: it is written last, to a temporary name, fsynced and renamed. Nothing in a cell or sample
file depends on the time, host, engine or batch size.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palpate.errors import StoreError
from palpate.outcome import Certificate, Outcome, Status, Trace, Verdict

SCHEMA_VERSION = 3  # 1: no numbers per class of a mask; 2: no prompts, pixel counts, traces
READABLE = (1, 2, SCHEMA_VERSION)
Columns = dict[str, NDArray[Any]]

_REGIONS = {
    "overlap": pa.int32(),
    "decided": pa.int32(),
    "expected": pa.int32(),
    "hd95": pa.float32(),
    "surface": pa.float32(),
    "lesions": pa.int32(),
    "found": pa.int32(),
}
REGION_COLUMNS = tuple(f"region_{name}" for name in _REGIONS)
_SAMPLES = pa.schema(
    [
        ("sample", pa.string()),
        ("case", pa.string()),
        ("site", pa.string()),
        ("trial", pa.int32()),
        ("reference", pa.list_(pa.int32())),
        ("decision", pa.list_(pa.int32())),
        ("probabilities", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("last_score", pa.float32()),
        ("finite", pa.bool_()),
        ("identical", pa.bool_()),
        ("verdict", pa.string()),
        *((norm, pa.float32()) for norm in ("linf", "l2", "l0")),
        ("status", pa.string()),
        ("prompt", pa.string()),
        ("pixels", pa.int64()),
        ("wrong_pixels", pa.int64()),
        ("changed_pixels", pa.int64()),
        *((name, pa.float32()) for name in (*Trace._fields, *Certificate._fields)),
        *((f"region_{name}", pa.list_(kind)) for name, kind in _REGIONS.items()),
    ]
)


@dataclass(frozen=True)
class CellRecord:
    """What is known of one cell; everything but the outcomes themselves.

    Attributes:
        key: SHA-256 of all that determines the result.
        status: "ok" or "error".
        target: label of the model.
        defence: name of the defence, "none" for the bare target.
        dataset: label of the dataset.
        family: perturbation family, "none" for the clean cell.
        perturbation: component name, "none" for the clean cell.
        setting: the component's parameters.
        trials: how many trials per sample.
        samples: how many samples.
        notes: per trial, what the perturbation said of it (fault sites and the like).
        error: type, message and traceback where status is "error".
    """

    key: str
    status: str
    target: str
    defence: str
    dataset: str
    family: str
    perturbation: str
    setting: dict[str, Any]
    trials: int
    samples: int
    notes: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Record:
    """A run directory, read back without any tensor library.

    Attributes:
        folder: the run directory.
        manifest: content of run.json.
        cells: finished cells in the order of the plan; cells not yet run are absent.
    """

    folder: Path
    manifest: dict[str, Any]
    cells: tuple[CellRecord, ...]

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read the manifest and every finished cell of the plan.

        Raises:
            StoreError: no run there, a damaged file, or a version that this Palpate cannot read.
        """
        manifest = read_json(folder / "run.json")
        if manifest.get("schema_version") not in READABLE:
            raise StoreError(
                f"{folder / 'run.json'}: expected schema_version {' or '.join(map(str, READABLE))},"
                f" got {manifest.get('schema_version')!r}"
            )
        found: list[CellRecord] = []
        for entry in manifest["plan"]:
            path = folder / "cells" / f"{entry['key']}.json"
            if path.exists():
                # a cell is named by its content, so the labels are the plan's, not the file's
                labels = {name: entry[name] for name in ("target", "defence", "dataset")}
                found.append(dataclasses.replace(read_cell(path), **labels))
        return cls(folder, manifest, tuple(found))

    def samples(self, cell: CellRecord) -> Columns:
        """Outcomes of one cell as columns, in the order of (trial, sample).

        Names are those of `palpate.outcome.Outcome`. `reference`, `decision`, `probabilities` are
        (rows, width) arrays, where a missing decision is -1 and a missing probability is NaN. The
        `region_` columns, (rows, foreground classes), are those of `palpate.regions.Region` for
        dense tasks, else empty. What an older version did not write is empty, 0 or NaN.
        """
        return read_samples(self.folder / "samples" / f"{cell.key}.parquet")

    def images(self, cell: CellRecord) -> dict[str, NDArray[Any]]:
        """Worst cases of one cell, as `palpate.worst_cases` made them, or empty."""
        path = self.folder / "images" / f"{cell.key}.npz"
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}

    @cached_property
    def missing(self) -> list[dict[str, Any]]:
        """Plan entries that have no finished cell."""
        done = {cell.key for cell in self.cells}
        return [entry for entry in self.manifest["plan"] if entry["key"] not in done]


def write_cell(
    folder: Path,
    cell: CellRecord,
    outcomes: Sequence[Outcome],
    images: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write one cell: samples and images first, the cell file last, each atomically.

    Raises:
        StoreError: read-only or full store; nothing half-written is left under a final name.
    """
    if outcomes:
        buffer = io.BytesIO()
        pq.write_table(_table(outcomes), buffer, compression="zstd")
        write_atomic(folder / "samples" / f"{cell.key}.parquet", buffer.getvalue())
    if images:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(images))
        write_atomic(folder / "images" / f"{cell.key}.npz", buffer.getvalue())
    write_json(folder / "cells" / f"{cell.key}.json", dataclasses.asdict(cell))


def read_cell(path: Path) -> CellRecord:
    """Read one cell file.

    Raises:
        StoreError: damaged, or of another version.
    """
    data = read_json(path)
    fields = {f.name for f in dataclasses.fields(CellRecord)}
    if data.get("schema_version") not in READABLE or data.keys() != fields:
        raise StoreError(f"{path}: expected a cell file of version {SCHEMA_VERSION}")
    return CellRecord(**data)


def read_samples(path: Path, names: Sequence[str] = ()) -> Columns:
    """Read one samples file as columns, all of them or some; see `Record.samples`.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        table = pq.ParquetFile(path).read(columns=list(names) or None)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    columns: Columns = {}
    for name in names or _SAMPLES.names:
        if name not in table.column_names:  # of an older version
            kind = _SAMPLES.field(name).type
            shape = (table.num_rows, 0) if pa.types.is_list(kind) else table.num_rows
            missing = "" if pa.types.is_string(kind) else np.nan if kind == pa.float32() else 0.0
            columns[name] = np.full(shape, missing)
            continue
        column = table.column(name)
        if pa.types.is_list(column.type):
            floating = pa.types.is_floating(column.type.value_type)
            columns[name] = _padded(column.combine_chunks(), floating=floating)
        elif pa.types.is_string(column.type):
            # few distinct words in many rows
            coded = column.combine_chunks().dictionary_encode()
            words = np.array(coded.dictionary.to_pylist(), dtype=str)
            columns[name] = words[coded.indices.to_numpy()] if len(words) else words
        else:
            columns[name] = column.to_numpy()
    return columns


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically with sorted keys.

    Raises:
        StoreError: read-only or full store.
    """
    text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    write_atomic(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(
            f"no run at {path.parent}: cannot read {path.name}: {error.strerror}"
        ) from None
    except orjson.JSONDecodeError:
        raise StoreError(f"{path}: expected JSON, got a damaged file") from None
    if not isinstance(data, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data  # pyright: ignore[reportUnknownVariableType]


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary name, flush to the disk, rename.

    Raises:
        StoreError: read-only or full store; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}") from None


def _table(outcomes: Sequence[Outcome]) -> Any:  # pyarrow has no type stubs
    arrays = [pa.array([_plain(o, f.name) for o in outcomes], type=f.type) for f in _SAMPLES]
    return pa.Table.from_arrays(arrays, schema=_SAMPLES)


def _plain(outcome: Outcome, name: str) -> Any:
    if name in REGION_COLUMNS:
        return [getattr(region, name.removeprefix("region_")) for region in outcome.regions]
    value = getattr(outcome, name)
    return str(value) if isinstance(value, Verdict | Status) else value


def _padded(rows: Any, *, floating: bool) -> NDArray[Any]:
    """Lists of an Arrow column as a matrix, the short ones filled up."""
    fill, kind = (np.nan, np.float32) if floating else (-1, np.int32)
    lengths = np.diff(rows.offsets.to_numpy())
    padded = np.full((len(rows), lengths.max(initial=0)), fill, dtype=kind)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = rows.flatten().to_numpy(
        zero_copy_only=False
    )
    return padded
