"""Plan, open the store, run what is missing, read the record back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palpate.campaign.engine import Engines, Finished
from palpate.campaign.plan import Audit, Cell, Plan, make_plan
from palpate.campaign.probe import run_probes
from palpate.campaign.store import is_done, open_run
from palpate.campaign.worker import Worker
from palpate.record import Record


@dataclass(frozen=True)
class Progress:
    """Where a campaign stands.

    Attributes:
        done: finished cells, those of earlier runs included.
        total: all cells of the plan.
        finished: the cell that has just ended, None at the start.
    """

    done: int
    total: int
    finished: Finished | None = None


Watch = Callable[[Progress], None]


def drive(
    audit: Audit,
    folder: Path,
    *,
    command: str = "",
    engine: str = "local",
    workers: int = 1,
    watch: Watch | None = None,
) -> Record:
    """Run every cell that has no good result yet; what was done before stays.

    Args:
        audit: data, models and perturbations.
        folder: run directory, created if need be.
        command: how to rerun, for the manifest.
        engine: name of the engine.
        workers: cells that run at once.
        watch: called at the start and after every cell.

    Returns:
        The record, with failed cells in it.

    Raises:
        UsageError: see `make_plan` and `open_run`.
    """
    chosen = Engines.load(engine)
    plan = make_plan(audit)
    open_run(folder, audit, plan, command=command)
    # two labels on one model share their cells
    once = {cell.key: cell for cell in plan.cells}
    waiting = [cell for key, cell in once.items() if not is_done(folder, key)]
    tell = watch or _ignore
    done, total = len(once) - len(waiting), len(once)
    tell(Progress(done, total))
    run_probes(audit, plan.probes, folder)
    for finished in chosen.run(waiting, Worker(audit, folder), workers=workers):
        done += 1
        tell(Progress(done, total, finished))
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


def _passes(cell: Cell) -> float:
    if cell.perturbation is None:
        return 1.0
    judging = 0.0 if cell.entry["family"] == "faults" else 1.0  # a fault's trial is its own answer
    return 1.0 + cell.perturbation.repeats * (cell.perturbation.passes + judging)


def _ignore(progress: Progress) -> None:
    del progress
