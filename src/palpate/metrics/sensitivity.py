"""Sensitivity: share of the positive samples that are found."""

from dataclasses import dataclass
from typing import ClassVar, final

from typing_extensions import override

from palpate.metrics._recall import RecallMetric
from palpate.metrics.base import (
    Measurement,
    Rows,
    TaskInfo,
    macro_recall,
    recall_of,
)


@final
@dataclass(frozen=True)
class Sensitivity(RecallMetric):
    """Recall of the positive class; macro average one-vs-rest if the task names none."""

    meaning: ClassVar[str] = (
        "Share of the positive class decided as positive; where the task names no positive class,"
        " the mean of this over the classes. A non-finite output is wrong."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        return macro_recall(rows) if task.positive is None else recall_of(rows, task.positive)
