"""On this machine: one cell after the other in this process, or several processes at once.

A process of its own loads data and models once, by the audit file, and is handed keys; it plans the
audit again and refuses to work for one that differs in anything. Threads are shared out evenly and
set, since processes that each take all cores slow each other down several times.
"""

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final, NamedTuple, final

from typing_extensions import override

from palpate.campaign.engine import Engine, Finished
from palpate.campaign.plan import Cell, make_plan, resolve
from palpate.campaign.worker import Worker
from palpate.config import AuditConfig
from palpate.errors import ConfigError, StoreError
from palpate.record import CellRecord

_MOST: Final = 256


class _Errand(NamedTuple):
    """What a process needs to rebuild the audit."""

    config: str
    base: Path
    limit: int | None
    folder: Path
    threads: int


class _Hand(NamedTuple):
    """A worker in its own process, with the cells by key."""

    worker: Worker
    cells: dict[str, Cell]


@final
class LocalEngine(Engine):
    """No ports and no services; what tests, notebooks and laptops use."""

    @override
    def run(self, cells: Sequence[Cell], worker: Worker, *, workers: int = 1) -> Iterator[Finished]:
        if not 1 <= workers <= _MOST:
            raise ConfigError(f"workers: expected 1 to {_MOST}, got {workers}")
        if workers == 1 or len(cells) < 2:
            yield from _here(cells, worker)
            return
        if not worker.audit.again or worker.audit.base is None:
            raise ConfigError(
                f"workers: expected an audit file to run with {workers} processes, got models or"
                " data handed in from Python"
            )
        yield from _beside(cells, worker, workers)


def _here(cells: Sequence[Cell], worker: Worker) -> Iterator[Finished]:
    for cell in cells:
        start = time.perf_counter()
        record = worker.run(cell)
        yield Finished(cell, record, time.perf_counter() - start)


def _beside(cells: Sequence[Cell], worker: Worker, workers: int) -> Iterator[Finished]:
    by_key = {cell.key: cell for cell in cells}
    audit = worker.audit
    assert audit.base is not None
    errand = _Errand(
        config=audit.config.model_dump_json(),
        base=audit.base,
        limit=audit.limit,
        folder=worker.folder.resolve(),
        threads=max(1, (os.cpu_count() or 1) // workers),
    )
    pool = ProcessPoolExecutor(
        min(workers, len(cells)),
        mp_context=multiprocessing.get_context("spawn"),
    )
    try:
        waiting = [pool.submit(_work, errand, key) for key in by_key]
        for done in as_completed(waiting):
            key, record, seconds = done.result()
            yield Finished(by_key[key], record, seconds)
    except BrokenProcessPool:
        raise StoreError(
            f"expected {workers} workers to run to the end, lost one (out of memory?); what was"
            " finished stays: run again, with fewer"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@functools.cache
def _hand(errand: _Errand) -> _Hand:
    """Rebuild the audit, once in each process."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops handing out work
    torch.set_num_threads(errand.threads)
    sys.path.insert(0, str(errand.base))  # a user's own factory lies beside the audit file
    audit = resolve(AuditConfig.model_validate_json(errand.config), errand.base, errand.limit)
    return _Hand(Worker(audit, errand.folder), {c.key: c for c in make_plan(audit).cells})


def _work(errand: _Errand, key: str) -> tuple[str, CellRecord, float]:
    hand = _hand(errand)
    if key not in hand.cells:
        raise StoreError(
            "expected the data, weights and versions that the audit was planned with, got others in"
            " a worker; run the same command again"
        )
    start = time.perf_counter()
    record = hand.worker.run(hand.cells[key])
    return key, record, time.perf_counter() - start
