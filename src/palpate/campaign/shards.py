"""One big cell over several workers: each takes a run of samples, and the parts become one cell.

A shard is cut by position in the dataset's order, at the borders of batches, so that every batch is
the one that the whole cell would have had and the compiled cell is the same to the byte. A part is
written like a cell, below `shards/<start>-<stop>/`, and removed once the whole is written.
"""

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palpate.campaign.claims import LAPSE, now
from palpate.campaign.plan import Cell
from palpate.campaign.unit import Unit
from palpate.datasets.base import Samples
from palpate.errors import ContractError
from palpate.outcome import FOLLOWED
from palpate.perturbation import Perturbation
from palpate.record import CellRecord, read_cell, write_atomic, write_json
from palpate.types import Batch
from palpate.worst_cases import Rank, badness, rank_of

Shard = tuple[int, int]

_JUDGED = ("score", "probabilities", "finite")


@dataclass(frozen=True)
class Part:
    """Some samples in order, a batch at a time; can be read again.

    Attributes:
        samples: all of them.
        shard: first one and the one after the last.
        size: samples per batch.
    """

    samples: Samples
    shard: Shard
    size: int

    def __iter__(self) -> Iterator[Batch]:
        first, end = self.shard
        for start in range(first, end, self.size):
            yield self.samples.batch(range(start, min(start + self.size, end)))


def cut(cell: Cell, count: int, *, shards: int, batch_size: int) -> list[Shard | None]:
    """Shards of one cell; only None where it stays whole.

    Args:
        cell: which.
        count: of samples.
        shards: at most so many.
        batch_size: samples per forward pass.
    """
    parts = min(shards, -(-count // batch_size))
    if parts == 1 or _looks_at_all(cell.perturbation):
        return [None]
    batches = -(-count // batch_size)
    edges = [min(count, batches * i // parts * batch_size) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def _looks_at_all(perturbation: Perturbation | None) -> bool:
    """Whether what is done to one sample hangs on the others: a search, a stop by margin."""
    if perturbation is None:
        return False
    if type(perturbation).continued is not Perturbation.continued:
        return True
    # a dealt fault without a margin fits nothing
    return perturbation.looks_first and bool(getattr(perturbation, "margin", 1.0))


def assemble(folder: Path, key: str, parts: Sequence[Shard], *, gallery: int) -> CellRecord:
    """Write the cell that its finished parts make up, and remove them.

    Args:
        folder: run directory.
        key: of the cell.
        parts: all shards, in order.
        gallery: how many worst cases to keep as images.

    Raises:
        StoreError: a part cannot be read, or the cell not be written.
        ContractError: parts that do not agree, or a sample that is not there exactly once.
    """
    units = [Unit(key, shard) for shard in parts]
    records = [read_cell(unit.result(folder)) for unit in units]
    failed = next((record for record in records if record.status != "ok"), None)
    if failed is not None:
        write_json(folder / "cells" / f"{key}.json", dataclasses.asdict(failed))
        return failed
    first = records[0]
    if any((r.trials, r.notes) != (first.trials, first.notes) for r in records):
        raise ContractError(f"{first.perturbation}: expected equal trials in all shards")
    whole = dataclasses.replace(first, samples=sum(r.samples for r in records))
    table = _joined([unit.home(folder) / "samples" / f"{key}.parquet" for unit in units])
    check_once(whole, table.column("trial").to_numpy(), table.column("sample").to_pylist())
    _write(folder, f"samples/{key}.parquet", table)
    _write_images(folder, units, table, gallery=gallery)
    write_json(folder / "cells" / f"{key}.json", dataclasses.asdict(whole))
    for unit in units:
        for name in (f"cells/{key}.json", f"samples/{key}.parquet", f"images/{key}.npz"):
            (unit.home(folder) / name).unlink(missing_ok=True)
    return whole


def tidy(folder: Path) -> None:
    """Remove folders that hold nothing any more, and what killed processes had half-written."""
    moment = now(folder)
    for kind in ("cells", "samples", "images", "probes"):
        for path in (folder / kind).glob(".*.tmp"):
            with contextlib.suppress(OSError):  # a peer was first
                if moment - path.stat().st_mtime_ns > LAPSE * 1e9:
                    path.unlink()
    for path in sorted((folder / "shards").rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    with contextlib.suppress(OSError):  # not there, or not empty
        (folder / "shards").rmdir()


def check_once(cell: CellRecord, trials: NDArray[Any] | list[int], samples: list[str]) -> None:
    """Raise unless every sample is there exactly once in each trial.

    Raises:
        ContractError: rows lost or doubled.
    """
    expected = cell.trials * cell.samples
    distinct = len(set(zip(list(trials), samples, strict=True)))
    if not len(samples) == distinct == expected or len(set(samples)) > cell.samples:
        raise ContractError(
            f"{cell.target} {cell.perturbation}: expected {cell.samples} samples once in each of"
            f" {cell.trials} trials, got {len(samples)} rows, {distinct} of them distinct"
        )


def _joined(paths: Sequence[Path]) -> Any:
    """All rows, by trial and then in the order of the parts."""
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    order = np.argsort(table.column("trial").to_numpy(), kind="stable")
    return table.take(order).combine_chunks().cast(pa.schema(map(_as_written, table.schema)))


def _as_written(field: Any) -> Any:
    """Reading gives the items of lists another name, and numbers to the fields."""
    kind = field.type
    return pa.field(field.name, pa.list_(kind.value_type) if pa.types.is_list(kind) else kind)


def _write(folder: Path, name: str, table: Any) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(folder / name, buffer.getvalue())


def _write_images(folder: Path, units: Sequence[Unit], table: Any, *, gallery: int) -> None:
    """The worst of the parts' worst cases, and the first of the samples that they follow."""
    key = units[0].key
    paths = [unit.home(folder) / "images" / f"{key}.npz" for unit in units]
    galleries = [_arrays(path) for path in paths if path.exists()]
    if not galleries:
        return
    cases = [g for g in galleries if "sample" in g]
    followed = min(galleries, key=_rank)
    names = list((cases or galleries)[0])  # in the order in which the whole cell has them
    joined = {
        name: np.concatenate([g[name] for g in cases])
        for name in names
        if not name.startswith(FOLLOWED)
    }
    kept = _worst(joined, table)[:gallery] if cases else []
    whole = {name: joined[name][kept] if name in joined else followed[name] for name in names}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **whole)
    write_atomic(folder / "images" / f"{key}.npz", buffer.getvalue())


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _rank(found: dict[str, NDArray[Any]]) -> Rank:
    sample, trial, right = (found[FOLLOWED + name][0] for name in ("sample", "trial", "right"))
    return rank_of(str(sample), int(trial), right=bool(right))


def _worst(joined: dict[str, NDArray[Any]], table: Any) -> list[int]:
    """Positions in a gallery, in the order of `WorstCases`."""
    shown = list(zip(joined["trial"].tolist(), joined["sample"].tolist(), strict=True))
    wanted = set(shown)
    keys = zip(table.column("trial").to_pylist(), table.column("sample").to_pylist(), strict=True)
    places = {place: i for i, place in enumerate(keys) if place in wanted}

    def rank(position: int) -> tuple[float, str, int]:
        trial, sample = shown[position]
        found = {name: table.column(name)[places[trial, sample]].as_py() for name in _JUDGED}
        bad = badness(found["score"], found["probabilities"], finite=found["finite"])
        return bad, sample, trial

    return sorted(range(len(shown)), key=rank, reverse=True)
