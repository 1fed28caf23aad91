"""What is handed to a worker: a whole cell, or a shard of one; by key, never by content."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from palpate.errors import StoreError
from palpate.record import read_cell

_MAGIC: Final = b"PAR1"

Status = Literal["ok", "error", "busy", "lost"]


@dataclass(frozen=True)
class Unit:
    """A whole cell, or the samples `start` to `stop` of one.

    Attributes:
        key: of the cell.
        shard: first sample and the one after the last; None for all.
        seen: `signature` of the result when the unit was handed out, so that a worker can tell an
            old failure, which is run again, from one that a peer has just written.
        batch_size: samples per forward pass, where it must be smaller than the audit's.
    """

    key: str
    shard: tuple[int, int] | None = None
    seen: str = ""
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Name of the claim."""
        return self.key if self.shard is None else f"{self.key}.{self.shard[0]}-{self.shard[1]}"

    def home(self, folder: Path) -> Path:
        """Where the result is written: the run, or a folder of its own for parts."""
        if self.shard is None:
            return folder
        return folder / "shards" / f"{self.shard[0]}-{self.shard[1]}"

    def result(self, folder: Path) -> Path:
        """The file whose presence says that the unit has ended."""
        return self.home(folder) / "cells" / f"{self.key}.json"

    def stamped(self, folder: Path) -> "Unit":
        """The same, with the signature of what lies there now."""
        return replace(self, seen=signature(self.result(folder)))


class Ended(NamedTuple):
    """How a worker's attempt at a unit came out.

    Attributes:
        unit: which.
        status: "ok" or "error" are written in the cell file; "busy": somebody else has it; "lost":
            the worker died.
        seconds: how long it took.
        message: of the error.
    """

    unit: Unit
    status: Status
    seconds: float = 0.0
    message: str = ""


def is_done(folder: Path, key: str) -> bool:
    """Whether a cell has a good result; a missing, damaged or failed one is run again."""
    found = ended(folder, Unit(key))
    return found is not None and found.status == "ok"


def ended(folder: Path, unit: Unit) -> Ended | None:
    """What the files say of a unit; None where they hold no readable result."""
    path = unit.result(folder)
    if not path.exists():
        return None
    try:
        cell = read_cell(path)
    except StoreError:
        return None
    if cell.status != "ok":
        return Ended(unit, "error", message=(cell.error or {}).get("message", ""))
    samples = unit.home(folder) / "samples" / f"{unit.key}.parquet"
    return Ended(unit, "ok") if _is_whole(samples) else None


def signature(path: Path) -> str:
    """Tells one writing of a file from the next; empty for no file."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"


def _is_whole(path: Path) -> bool:
    """Whether a Parquet file is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_MAGIC), os.SEEK_END)
            return file.read() == _MAGIC
    except OSError:
        return False
