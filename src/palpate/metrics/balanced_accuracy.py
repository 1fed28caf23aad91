"""Balanced accuracy: mean recall over the classes."""

from dataclasses import dataclass
from typing import ClassVar, final

from typing_extensions import override

from palpate.metrics._recall import RecallMetric
from palpate.metrics.base import Measurement, Rows, TaskInfo, macro_recall


@final
@dataclass(frozen=True)
class BalancedAccuracy(RecallMetric):
    """Mean over the classes of the share of their samples decided rightly."""

    meaning: ClassVar[str] = (
        "Mean over the classes of the share of each class decided rightly (macro recall). Classes"
        " without a sample are left out. A non-finite output is wrong."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        return macro_recall(rows)
