"""SDC rate: share of decisions that a fault changes silently."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import DENSE, FAULTS, LABELS, Measurement, Metric, Rows, Share, TaskInfo


@final
@dataclass(frozen=True)
class SdcRate(Metric):
    """Share of (trial, image) decisions changed by a fault without any notice.

    Compared with the golden (fault-free) decision, not with the reference, by the verdict of the
    evaluation. Criterion `top1`: another first class, of masks in any pixel, or any other label.
    """

    tasks: ClassVar[frozenset[str]] = LABELS | DENSE
    families: ClassVar[frozenset[str]] = FAULTS
    essential: ClassVar[bool] = True
    better: ClassVar = "lower"
    meaning: ClassVar[str] = (
        "Silent data corruption: share of (fault, image) pairs whose decision differs from the"
        " fault-free one without any notice. Criterion: top1, the first class changes (of masks,"
        " that of any pixel; of several labels, any)."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        return Share((rows["verdict"] == "sdc").astype(np.float64))
