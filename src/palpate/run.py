"""A run read back: what a notebook and a test look at; never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palpate.record import Record

if TYPE_CHECKING:
    from palpate.statistics.checks import Check
    from palpate.statistics.compare import Comparison
    from palpate.statistics.gates import Judgement
    from palpate.statistics.summary import Summary
    from palpate.statistics.table import Table


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) audit in its run directory.

    Attributes:
        record: manifest and cells.
    """

    record: Record

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Read a run directory.

        Raises:
            StoreError: no run there, or a damaged one.
        """
        return cls(Record.load(Path(folder)))

    def summary(self) -> "Summary":
        """One row per target, defence, cell and metric, each with its interval."""
        from palpate.statistics.summary import summarise

        return summarise(self.record)

    def checks(self) -> "Table[Check]":
        """One row per check of the audit on itself."""
        from palpate.statistics.checks import checks

        return checks(self.record)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the self-contained HTML report, `report.html` in the run directory by default."""
        from palpate.report.page import render

        return render(
            self.record, self.record.folder / "report.html" if path is None else Path(path)
        )

    def compare(self, before: "Run", *, margin: float | None = None) -> "Comparison":
        """Paired differences to an earlier run on the same samples, this one minus that one.

        Args:
            before: the earlier run.
            margin: largest loss that is still acceptable, in (0, 1).

        Raises:
            DataError: the runs rest on different data.
        """
        from palpate.statistics.compare import compare

        return compare(before.record, self.record, margin=margin)

    def check(self, gates: "str | Path | Sequence[Mapping[str, Any]]") -> "Judgement":
        """Hold the run against gates; see `docs/ci.md`.

        Args:
            gates: a gates file, or its gates as plain data.

        Raises:
            ConfigError: gates that say nothing valid.
        """
        from palpate.statistics.gates import judge, load_gates, parse_gates

        if isinstance(gates, str | Path):
            return judge(self.record, load_gates(Path(gates)))
        return judge(self.record, parse_gates({"gates": list(gates)}))

    def log_to(self, to: str, *, project: str = "palpate", where: str | None = None) -> str:
        """Send the summary's rows to a tracker; never images, samples or cases.

        Args:
            to: "mlflow" or "wandb".
            project: experiment (MLflow) or project (W&B).
            where: tracking URI (MLflow), or folder of an offline run (W&B).

        Returns:
            Where the numbers are now.

        Raises:
            UnknownComponent: no such tracker.
            ConfigError: its package is not installed.
            StoreError: it could not be reached, or refused.
        """
        from palpate.sinks import send

        return send(self.record, to, project=project, where=where)

    def to_pandas(self) -> Any:
        """The summary's rows as a `pandas.DataFrame`.

        Raises:
            ConfigError: pandas is not installed.
        """
        return self.summary().to_pandas()

    def to_arrow(self) -> Any:
        """The summary's rows as a `pyarrow.Table`."""
        return self.summary().to_arrow()

    def _repr_html_(self) -> str:
        from palpate.statistics.checks import checks
        from palpate.statistics.notebook import run_html

        summary = self.summary()
        return run_html(self.record, summary, checks(self.record, summary=summary))
