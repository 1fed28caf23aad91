"""DUE rate: share of outputs that a fault makes non-finite."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import DENSE, FAULTS, LABELS, Measurement, Metric, Rows, Share, TaskInfo


@final
@dataclass(frozen=True)
class DueRate(Metric):
    """Share of (trial, image) pairs whose output is non-finite or crashed: noticed, not silent."""

    tasks: ClassVar[frozenset[str]] = LABELS | DENSE
    families: ClassVar[frozenset[str]] = FAULTS
    essential: ClassVar[bool] = True
    better: ClassVar = "lower"
    meaning: ClassVar[str] = (
        "Detected, unrecoverable error: share of (fault, image) pairs whose output is not a finite"
        " number, which a system can notice."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        return Share((rows["verdict"] == "due").astype(np.float64))
