"""Relative drop of the score against the clean score."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import (
    DENSE,
    DISTURBED,
    LABELS,
    Measurement,
    Metric,
    Ratio,
    Rows,
    TaskInfo,
)


@final
@dataclass(frozen=True)
class RelativeDrop(Metric):
    """(clean score - perturbed score) / clean score, of the mean scores over the same samples.

    Negative where the disturbance helped. A non-finite output scores 0.
    """

    tasks: ClassVar[frozenset[str]] = LABELS | DENSE
    families: ClassVar[frozenset[str]] = DISTURBED
    essential: ClassVar[bool] = True
    needs_clean: ClassVar[bool] = True
    by_size: ClassVar[bool] = True
    better: ClassVar = "lower"
    meaning: ClassVar[str] = (
        "(clean score - perturbed score) / clean score, where the score is accuracy or mean Dice"
        " over the same samples."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        clean = rows["clean_score"].astype(np.float64)
        score = np.where(rows["finite"].astype(bool), rows["score"], 0.0)
        return Ratio(clean - score, clean, low=-np.inf, high=1.0)
