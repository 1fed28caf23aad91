"""Plan, open the store, run what is missing, read the record back."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pyarrow.parquet as pq

from palpate.campaign.crew import Crew
from palpate.campaign.engine import Engine, Engines
from palpate.campaign.hand import Hand
from palpate.campaign.plan import Audit, Cell, Plan, make_plan
from palpate.campaign.probe import run_probes
from palpate.campaign.shards import Shard, assemble, cut, tidy
from palpate.campaign.store import check_versions, open_run
from palpate.campaign.unit import Ended, Unit, is_done
from palpate.errors import ContractError
from palpate.record import Record, read_cell

_LOOK: Final = 0.5  # seconds between looks at what other runs hold


@dataclass(frozen=True)
class Finished:
    """A cell that has just ended.

    Attributes:
        cell: which.
        error: its message; empty for a good result.
        seconds: how long it took, all its shards together; 0 where another run did it.
    """

    cell: Cell
    error: str
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where a campaign stands.

    Attributes:
        done: finished cells, those of earlier runs included.
        total: all cells of the plan.
        finished: the cell that has just ended, None at the start.
        elsewhere: units that other runs on the same folder hold, when only those are left.
        probed: the model that is looked at before any cell is run; empty later.
    """

    done: int
    total: int
    finished: Finished | None = None
    elsewhere: int = 0
    probed: str = ""


Watch = Callable[[Progress], None]


def drive(
    audit: Audit,
    folder: Path,
    *,
    command: str = "",
    crew: Crew | None = None,
    watch: Watch | None = None,
) -> Record:
    """Run every cell that has no good result yet; what was done before stays.

    Args:
        audit: data, models and perturbations.
        folder: run directory, created if need be.
        command: how to rerun, for the manifest.
        crew: who runs the cells; this process by default.
        watch: called at the start and after every cell.

    Returns:
        The record, with failed cells in it.

    Raises:
        UsageError: see `make_plan`, `open_run` and the engines.
        ContractError: a sample is not in a cell exactly once per trial.
    """
    crew = crew or Crew()
    engine = Engines.load(crew.engine)
    plan = make_plan(audit)
    open_run(folder, audit, plan, command=command)
    hand = Hand.of(audit, folder, plan, session=uuid.uuid4().hex[:12])
    hand.claims.sweep()
    shards = _shards(hand, crew)  # two labels on one model share their cells
    tell = watch or _ignore
    done, total = len(hand.cells) - len(shards), len(hand.cells)
    tell(Progress(done, total))
    for model in run_probes(audit, plan.probes, folder):
        tell(Progress(done, total, probed=model))
    if not shards:
        return Record.load(folder)
    check_versions(folder)
    units = [Unit(key, part).stamped(folder) for key in shards for part in shards[key]]

    def waits(count: int) -> None:
        tell(Progress(done, total, elsewhere=count))

    for finished in _cells(_ends(engine, units, hand, crew, waits=waits), hand, shards):
        done += 1
        tell(Progress(done, total, finished))
    tidy(folder)
    return Record.load(folder)


def estimate(audit: Audit, plan: Plan) -> dict[str, float]:
    """Seconds per cell, from one measured forward pass per target; a guide, not a promise.

    Returns:
        Cell key -> seconds.
    """
    seconds: dict[str, float] = {}
    per_pass: dict[int, float] = {}
    batch = audit.samples.batch(range(min(len(audit.samples), audit.config.batch_size)))
    for cell in plan.cells:
        if cell.target not in per_pass:
            audit.targets[cell.target].predict(batch)
            start = time.perf_counter()
            audit.targets[cell.target].predict(batch)
            elapsed = time.perf_counter() - start
            per_pass[cell.target] = elapsed / len(batch) * len(audit.samples)
        seconds[cell.key] = per_pass[cell.target] * _passes(cell)
    return seconds


def _shards(hand: Hand, crew: Crew) -> dict[str, list[Shard | None]]:
    """What is left to do: cell key -> its parts."""
    audit, folder = hand.worker.audit, hand.worker.folder
    count, size = len(audit.samples), audit.config.batch_size
    return {
        key: cut(cell, count, shards=crew.shards, batch_size=size)
        for key, cell in hand.cells.items()
        if not is_done(folder, key)
    }


def _ends(
    engine: Engine,
    units: Sequence[Unit],
    hand: Hand,
    crew: Crew,
    *,
    waits: Callable[[int], None],
) -> Iterator[Ended]:
    """Every unit once; those that another run holds are waited for, or taken over."""
    while units:
        busy: list[Unit] = []
        with closing(cast("Any", engine.run(units, hand, crew))) as attempts:
            for end in cast("Iterator[Ended]", attempts):
                if end.status == "busy":
                    busy.append(end.unit)
                else:
                    yield end
        if busy:
            waits(len(busy))
        units = yield from _freed(busy, hand)


def _freed(busy: list[Unit], hand: Hand) -> Iterator[Ended]:
    """Wait until some of the units can be run, and return those; yield what peers have done."""
    free: list[Unit] = []
    while busy and not free:
        time.sleep(_LOOK)
        held: list[Unit] = []
        for unit in busy:
            settled, claim = hand.settled(unit), hand.claims.holder(unit.name)
            if settled is not None:
                yield settled
            elif claim is None:
                free.append(unit)
            elif hand.claims.abandoned(claim):
                hand.claims.clear(claim)
                free.append(unit)
            else:
                held.append(unit)
        busy = held
    return free + busy


def _cells(
    ends: Iterator[Ended], hand: Hand, shards: dict[str, list[Shard | None]]
) -> Iterator[Finished]:
    """Ends of units become ends of cells, once all shards of one are there."""
    folder, left = hand.worker.folder, {key: set(parts) for key, parts in shards.items()}
    seconds = dict.fromkeys(shards, 0.0)
    for end in ends:
        key = end.unit.key
        seconds[key] += end.seconds
        left[key].remove(end.unit.shard)
        if left[key]:
            continue
        error = end.message
        if end.unit.shard is not None and not is_done(folder, key):
            parts = [part for part in shards[key] if part is not None]
            whole = assemble(folder, key, parts, gallery=hand.worker.audit.config.gallery)
            error = (whole.error or {}).get("message", "")
        if not error:
            _check_rows(folder, key)
        yield Finished(hand.cells[key], error, seconds.pop(key))


def _check_rows(folder: Path, key: str) -> None:
    """The file must hold as many rows as the cell says; the worker has looked at each of them."""
    cell = read_cell(folder / "cells" / f"{key}.json")
    path = folder / "samples" / f"{key}.parquet"
    rows = pq.read_metadata(path).num_rows
    if rows != cell.trials * cell.samples:
        raise ContractError(
            f"{path}: expected {cell.samples} samples in {cell.trials} trials, got {rows} rows"
        )


def _passes(cell: Cell) -> float:
    if cell.perturbation is None:
        return 1.0
    judging = 0.0 if cell.entry["family"] == "faults" else 1.0  # a fault's trial is its own answer
    draws = getattr(cell.perturbation, "eot", 1)  # each pass of the search is so many
    return 1.0 + cell.perturbation.repeats * (draws * cell.perturbation.passes + judging)


def _ignore(progress: Progress) -> None:
    del progress
