"""Runs one cell, or a shard of one; safe to repeat."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from palpate.attacks._memory import free_memory, out_of_memory
from palpate.campaign.plan import Audit, Cell, protect
from palpate.campaign.shards import Part, Shard, check_once
from palpate.campaign.unit import Unit
from palpate.errors import StoreError
from palpate.evaluation import Evaluation, evaluate
from palpate.record import CellRecord, write_cell
from palpate.registry import canonical
from palpate.saliency import grad_cam
from palpate.targets._memo import Memo
from palpate.targets.base import Target

Shrunk = Callable[[int], None]


@dataclass(frozen=True)
class Worker:
    """Evaluates cells of one audit into one run directory.

    Attributes:
        audit: data and models.
        folder: run directory.
        memos: what the last target has said of undisturbed batches, by target and defence.
    """

    audit: Audit
    folder: Path
    memos: dict[tuple[int, str], Memo] = field(default_factory=dict[tuple[int, str], Memo])

    def run(self, cell: Cell, unit: Unit | None = None, *, shrunk: Shrunk | None = None) -> str:
        """Evaluate a cell and write it; a cell that raises is recorded as an error.

        Out of memory halves the batch until it fits, or one sample does not.

        Args:
            cell: what to do.
            unit: part of it, and batch size; the whole cell with the audit's by default.
            shrunk: told the batch size that did not fit.

        Returns:
            The message of the error; empty for a good result.

        Raises:
            StoreError: the result cannot be written; nothing half-written is left.
        """
        unit = unit or Unit(cell.key)
        home, size = unit.home(self.folder), unit.batch_size or self.audit.config.batch_size
        while True:
            try:
                record, found = self._evaluated(cell, unit.shard, size)
                break
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - the campaign goes on; the cell tells why
                if not (out_of_memory(error) and size > 1):
                    write_cell(home, failure(cell, error), [])
                    return str(error)
            # outside of the handler, which would keep the tensors alive
            (shrunk or _ignore)(size)
            size //= 2
            self.memos.clear()
            free_memory()
        write_cell(home, record, found.outcomes, found.images)
        return ""

    def _target(self, cell: Cell) -> Target:
        """The target behind its defence, with what it has said in cells before this one."""
        target = protect(self.audit, self.audit.targets[cell.target], cell.defence)
        key = (cell.target, canonical(cell.defence))
        if key not in self.memos:
            self.memos.clear()
            self.memos[key] = Memo()
        return replace(target, memo=self.memos[key])

    def _evaluated(
        self, cell: Cell, shard: Shard | None, size: int
    ) -> tuple[CellRecord, Evaluation]:
        config, samples, asked = self.audit.config, self.audit.samples, cell.perturbation
        target = self._target(cell)
        first, end = shard or (0, len(samples))
        found = evaluate(
            target,
            Part(samples, (first, end), size),
            perturbation=asked,
            seed=config.seed,
            storage=config.storage,
            gallery=config.gallery,
            study=None if asked is None else samples.batch(asked.studied(len(samples))),
        )
        if config.saliency is not None and found.images:
            found.images |= grad_cam(target, found.images, layer=config.saliency.layer)
        trials = len(found.notes)  # a campaign that stops by itself has fewer than were asked for
        record = CellRecord(
            key=cell.key,
            status="ok",
            trials=trials,
            samples=end - first,
            notes=found.notes,
            **cell.entry,
        )
        outcomes = found.outcomes
        check_once(record, [o.trial for o in outcomes], [o.sample for o in outcomes])
        return record, found


def failure(cell: Cell, error: Exception) -> CellRecord:
    """The record of a cell that has no result."""
    words = {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    return CellRecord(
        key=cell.key, status="error", trials=0, samples=0, notes=[], error=words, **cell.entry
    )


def _ignore(size: int) -> None:
    del size
