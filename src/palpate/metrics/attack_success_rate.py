"""Attack success rate: share of the samples right when clean that an attack turns wrong."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import (
    ATTACKS,
    LABELS,
    Measurement,
    Metric,
    Rows,
    Share,
    TaskInfo,
    right,
    withstood,
)


@final
@dataclass(frozen=True)
class AttackSuccessRate(Metric):
    """Share of samples right when clean that are wrong under at least one trial of the attack.

    A sample that still stands because the attack could not act on it (no gradient, no movement)
    is left out. For one attack that could act on every sample, robust accuracy = clean accuracy
    times (1 - attack success rate). Multi-label: mean over samples of the share of their labels
    right when clean that are turned wrong.
    """

    tasks: ClassVar[frozenset[str]] = LABELS
    families: ClassVar[frozenset[str]] = ATTACKS
    essential: ClassVar[bool] = True
    needs_clean: ClassVar[bool] = True
    better: ClassVar = "lower"
    meaning: ClassVar[str] = (
        "Share of the samples RIGHT WHEN CLEAN that the attack turns wrong. Samples that the attack"
        " could not act on are left out."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        stood, untried = withstood(rows)
        before = right(rows, "clean_").sum(axis=1)
        counted = (before > 0) & ~untried & ~np.isnan(stood[:, 0])
        kept = np.divide(stood.sum(axis=1), before, out=np.zeros(len(before)), where=counted)
        return Share(np.where(counted, 1.0 - kept, np.nan))
