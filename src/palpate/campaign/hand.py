"""A worker with all it needs: cells by key, claims and a journal; rebuilt in every process."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from palpate.campaign.claims import Claims
from palpate.campaign.inventory import inventory
from palpate.campaign.journal import Journal
from palpate.campaign.owner import Owner
from palpate.campaign.plan import Audit, Cell, Plan, make_plan, resolve
from palpate.campaign.unit import Ended, Unit, ended, is_done, signature
from palpate.campaign.worker import Worker, failure
from palpate.config import AuditConfig
from palpate.errors import StoreError
from palpate.record import write_cell


class WorkerLost(RuntimeError):
    """A process died while it ran a cell; the type of the error in the cell's record."""


class Errand(NamedTuple):
    """What another process needs to rebuild the audit; small, and the same for all of them.

    Attributes:
        config: the audit, as JSON.
        base: folder of the audit file.
        limit: samples kept.
        folder: run directory.
        session: of the run command.
        inventory: digest of the components that the audit was planned with.
        identity: of the plan.
    """

    config: str
    base: Path
    limit: int | None
    folder: Path
    session: str
    inventory: str
    identity: str


@dataclass(frozen=True)
class Hand:
    """Attempts units under a claim.

    Attributes:
        worker: evaluates and writes.
        cells: by key.
        claims: of the run.
        journal: of this process.
        identity: of the plan.
    """

    worker: Worker
    cells: dict[str, Cell]
    claims: Claims
    journal: Journal
    identity: str

    @classmethod
    def of(cls, audit: Audit, folder: Path, plan: Plan, *, session: str) -> "Hand":
        """For an audit that this process has loaded."""
        owner = Owner.here(session)
        return cls(
            Worker(audit, folder),
            {cell.key: cell for cell in plan.cells},
            Claims(folder, owner),
            Journal(folder, owner),
            plan.identity,
        )

    @classmethod
    def rebuilt(cls, errand: Errand, *, threads: int, gpu: bool) -> "Hand":
        """Load data and models in a process of its own.

        Args:
            errand: what to load.
            threads: that torch may use; processes that each take all cores slow each other down.
            gpu: whether the models are moved to the first GPU that this process sees.

        Raises:
            StoreError: other data, weights or versions here than where the audit was planned.
        """
        if errand.inventory != inventory():
            raise StoreError(
                f"expected the components that the audit was planned with (inventory"
                f" {errand.inventory[:12]}), got others in a worker ({inventory()[:12]}): install"
                " the same versions everywhere"
            )
        torch.set_num_threads(threads)
        sys.path.insert(0, str(errand.base))  # a user's own factory lies beside the audit file
        config = AuditConfig.model_validate_json(errand.config)
        audit = resolve(config, errand.base, errand.limit)
        plan = make_plan(audit)
        if plan.identity != errand.identity:
            raise StoreError(
                "expected the data and weights that the audit was planned with, got others in a"
                " worker; run the same command again"
            )
        if gpu:
            for target in audit.targets:
                target.module.to("cuda")
        return cls.of(audit, errand.folder, plan, session=errand.session)

    def attempt(self, unit: Unit) -> Ended:
        """Run a unit unless somebody else does, or has.

        Raises:
            StoreError: the result cannot be written.
        """
        with self.claims.hold(unit.name) as held:
            if not held:
                return Ended(unit, "busy")
            return self.settled(unit) or self._run(unit)

    def settled(self, unit: Unit) -> Ended | None:
        """How a unit has ended by now, if it was not so when it was handed out."""
        folder = self.worker.folder
        found = ended(folder, unit)
        if found is None:
            whole = unit.shard is not None and is_done(folder, unit.key)
            return Ended(unit, "ok") if whole else None
        old = found.status == "error" and unit.seen == signature(unit.result(folder))
        return None if old else found  # an old failure is run again

    def give_up(self, unit: Unit, why: str) -> Ended:
        """Record a unit that no worker survives as failed."""
        error = WorkerLost(why)
        write_cell(unit.home(self.worker.folder), failure(self.cells[unit.key], error), [])
        self.journal.note(unit.name, "given up", message=why)
        return Ended(unit, "error", message=why)

    def _run(self, unit: Unit) -> Ended:
        audit = self.worker.audit
        sizes = [unit.batch_size or audit.config.batch_size]

        def shrunk(size: int) -> None:
            sizes.append(size // 2)
            self.journal.note(unit.name, "out of memory", batch_size=size)

        start = time.perf_counter()
        message = self.worker.run(self.cells[unit.key], unit, shrunk=shrunk)
        seconds = time.perf_counter() - start
        status = "error" if message else "ok"
        device = str(audit.targets[self.cells[unit.key].target].device)
        self.journal.note(
            unit.name, status, seconds=round(seconds, 6), batch_size=sizes[-1], device=device
        )
        return Ended(unit, status, seconds, message)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
