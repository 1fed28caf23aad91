"""Accuracy: share of right decisions."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import (
    ALL,
    LABELS,
    Measurement,
    Metric,
    Ratio,
    Rows,
    Share,
    TaskInfo,
    right,
)


@final
@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right decisions; for multi-label, share of right labels (as MedMNIST does)."""

    tasks: ClassVar[frozenset[str]] = LABELS
    families: ClassVar[frozenset[str]] = ALL
    essential: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Share of right decisions (multi-label: of right labels), over all samples and trials."
        " A non-finite output is wrong."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        values = right(rows).mean(axis=1)
        if task.kind == "classification":
            return Share(values)
        return Ratio(values, np.ones_like(values))
