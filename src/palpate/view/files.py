"""The files of one run directory, read one by one; a damaged one is named, none outside is read."""

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palpate.errors import StoreError
from palpate.metrics.base import Rows, TaskInfo
from palpate.outcome import FOLLOWED
from palpate.record import READABLE, CellRecord, Columns, Record, read_cell, read_json, read_samples
from palpate.statistics.cells import Cells, joined

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_ENTRY: Final = {"target", "defence", "dataset", "family", "perturbation", "setting"}
_DATASET: Final = {"label", "task"}
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class Unknown(StoreError):
    """The run has no such cell or case."""


@dataclass(frozen=True)
class RunFiles:
    """A run directory of which the manifest is known.

    Attributes:
        folder: the run directory.
        manifest: content of run.json.
        entries: the plan by key.
    """

    folder: Path
    manifest: dict[str, Any]
    entries: dict[str, dict[str, Any]]
    _clean: dict[tuple[str, ...], Columns] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "RunFiles":
        """Read the manifest and no cell.

        Raises:
            StoreError: no run there, a damaged manifest, or a version that cannot be read.
        """
        path = folder / "run.json"
        manifest = read_json(path)
        if manifest.get("schema_version") not in READABLE:
            raise StoreError(
                f"{path}: expected schema_version {' or '.join(map(str, READABLE))},"
                f" got {manifest.get('schema_version')!r}"
            )
        try:
            entries = {str(entry["key"]): entry for entry in manifest["plan"]}
            whole = all(entry.keys() >= _ENTRY for entry in entries.values())
            whole &= manifest["dataset"].keys() >= _DATASET
        except (AttributeError, KeyError, TypeError):
            whole, entries = False, {}
        if not whole:
            raise StoreError(f"{path}: expected a plan and a dataset, got a damaged file")
        if wrong := [key for key in entries if not _KEY.fullmatch(key)]:
            raise StoreError(f"{path}: expected SHA-256 keys in the plan, got {wrong[0]!r}")
        return cls(folder, manifest, entries)

    @property
    def task(self) -> TaskInfo:
        """The dataset's task."""
        return Cells(self._record).task

    @property
    def bounds(self) -> tuple[float, float]:
        """Values shown as black and white."""
        low, high = self.manifest["dataset"].get("bounds") or (0.0, 1.0)
        return float(low), float(high)

    @property
    def report(self) -> Path | None:
        """The run's report, where it has one."""
        path = self.folder / "report.html"
        return path if path.is_file() and self._is_inside(path) else None

    def entry(self, key: str) -> dict[str, Any]:
        """One cell of the plan.

        Raises:
            Unknown: no such cell.
        """
        if key not in self.entries:
            raise Unknown(f"the run has no cell {key[:80]!r}")
        return self.entries[key]

    def stamp(self, key: str) -> int | None:
        """When a cell's file was written; None where it is not there yet."""
        try:
            return (self.folder / "cells" / f"{key}.json").stat().st_mtime_ns
        except OSError:
            return None

    def cell(self, key: str) -> CellRecord:
        """The file of one cell.

        Raises:
            Unknown: no such cell in the plan.
            StoreError: missing or damaged.
        """
        labels = {name: self.entry(key)[name] for name in ("target", "defence", "dataset")}
        return replace(read_cell(self._path("cells", f"{key}.json")), **labels)

    def rows(self, cell: CellRecord, names: Sequence[str] = ()) -> Rows:
        """Columns of a cell beside those of the clean cell of the same model.

        Args:
            cell: that has finished.
            names: of the columns wanted; `sample` and `reference` must be among them. All without.

        Raises:
            StoreError: a missing or damaged file.
        """
        return joined(self._columns(cell, names), self.clean_of(cell))

    def clean_of(self, cell: CellRecord) -> Columns | None:
        """Columns of the clean cell of the same model; None where there is none yet.

        Raises:
            StoreError: a damaged file.
        """
        group = (cell.target, cell.defence, cell.dataset)
        if group not in self._clean:
            key = self._clean_keys.get(group)
            if key is None or self.stamp(key) is None:
                return None
            clean = self.cell(key)
            if clean.status != "ok" or not clean.samples:
                return None
            self._clean[group] = self._columns(clean)
        return self._clean[group]

    @cached_property
    def _clean_keys(self) -> dict[tuple[str, ...], str]:
        return {
            (entry["target"], entry["defence"], entry["dataset"]): key
            for key, entry in self.entries.items()
            if entry["family"] == "none"
        }

    def pictured(self, cell: CellRecord) -> dict[tuple[str, int], int]:
        """Place of each sample and trial among the recorded worst cases, the worst first.

        Raises:
            StoreError: a damaged file.
        """
        images = self._arrays(cell, ("sample", "trial"))
        pairs = zip(images.get("sample", ()), images.get("trial", ()), strict=True)
        return {(str(name), int(trial)): place for place, (name, trial) in enumerate(pairs)}

    def images(self, cell: CellRecord) -> dict[str, NDArray[Any]]:
        """The recorded worst cases of a cell, as `Record.images` has them; empty without any.

        Raises:
            StoreError: a damaged file.
        """
        return self._arrays(cell)

    def _arrays(self, cell: CellRecord, names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        path = self._path("images", f"{cell.key}.npz")
        if not path.exists():
            return {}
        try:
            # numpy leaves a file open that it cannot read
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                own = [name for name in content.files if not name.startswith(FOLLOWED)]
                found = {name: content[name] for name in own if not names or name in names}
            lengths = {len(array) for array in found.values()}
        except _UNREADABLE as error:
            raise StoreError(f"{path}: cannot be read: {error}") from None
        if len(lengths) > 1:
            raise StoreError(f"{path}: expected as many pictures as samples, got others")
        return found

    def _columns(self, cell: CellRecord, names: Sequence[str] = ()) -> Columns:
        path = self._path("samples", f"{cell.key}.parquet")
        try:
            return read_samples(path, names)
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from None

    def _path(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        if not self._is_inside(path):
            raise StoreError(f"{path}: expected a file of the run, got a link out of it")
        return path

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.folder.resolve())

    @property
    def _record(self) -> Record:
        return Record(self.folder, self.manifest, ())
