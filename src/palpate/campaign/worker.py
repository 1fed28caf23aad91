"""Runs one cell; safe to repeat."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from palpate.campaign.plan import Audit, Cell, protect
from palpate.errors import StoreError
from palpate.evaluation import evaluate
from palpate.outcome import Outcome
from palpate.record import CellRecord, write_cell

_STUDIED = 64  # samples that a search looks at; fixed, so that the batch size changes no result


@dataclass(frozen=True)
class Worker:
    """Evaluates cells of one audit into one run directory.

    Attributes:
        audit: data and models.
        folder: run directory.
    """

    audit: Audit
    folder: Path

    def run(self, cell: Cell) -> CellRecord:
        """Evaluate a cell and write it; a cell that raises is recorded as an error.

        Raises:
            StoreError: the result cannot be written; nothing half-written is left.
        """
        try:
            record, outcomes, images = self._evaluated(cell)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - the campaign goes on; the cell tells why
            failed = _record(
                cell,
                status="error",
                error={
                    "type": type(error).__name__,
                    "message": str(error),
                    "traceback": traceback.format_exc(),
                },
            )
            write_cell(self.folder, failed, [])
            return failed
        write_cell(self.folder, record, outcomes, images)
        return record

    def _evaluated(self, cell: Cell) -> tuple[CellRecord, list[Outcome], dict[str, NDArray[Any]]]:
        config, samples = self.audit.config, self.audit.samples
        target = protect(self.audit, self.audit.targets[cell.target], cell.defence)
        result = evaluate(
            target,
            samples.batches(config.batch_size),
            perturbation=cell.perturbation,
            seed=config.seed,
            storage=config.storage,
            gallery=config.gallery,
            study=samples.batch(range(min(len(samples), _STUDIED))),
        )
        trials = len(result.notes)  # a campaign that stops by itself has fewer than were asked for
        record = _record(cell, status="ok", trials=trials, samples=len(samples), notes=result.notes)
        return record, result.outcomes, result.images


def _record(
    cell: Cell,
    *,
    status: str,
    trials: int = 0,
    samples: int = 0,
    notes: list[dict[str, object]] | None = None,
    error: dict[str, str] | None = None,
) -> CellRecord:
    return CellRecord(
        key=cell.key,
        status=status,
        trials=trials,
        samples=samples,
        notes=notes or [],
        error=error,
        **cell.entry,
    )
