"""Robust accuracy: share of all samples that an attack leaves right."""

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
    withstood,
)


@final
@dataclass(frozen=True)
class RobustAccuracy(Metric):
    """Share of all samples right when clean and under every trial of the attack.

    A sample that the attack could not act on (no gradient, no movement) is never counted robust.
    Multi-label: share of all labels, by the same rule.
    """

    tasks: ClassVar[frozenset[str]] = LABELS
    families: ClassVar[frozenset[str]] = ATTACKS
    essential: ClassVar[bool] = True
    needs_clean: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Share of ALL samples right when clean and still right under the attack. A sample that the"
        " attack could not act on (no gradient, no movement) is never counted as robust."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        stood, untried = withstood(rows)
        values = stood.mean(axis=1)
        if could_not_attack(rows):
            return Share(np.full_like(values, np.nan))
        return Share(np.where(untried, 0.0, values))


def could_not_attack(rows: Rows) -> bool:
    """Whether samples still stand, and the attack could act on none of those."""
    if rows["reference"].shape[1] == 0:  # masks: no label is right or wrong, so the score tells
        standing = (rows["clean_score"] > 0) & (rows["score"] >= rows["clean_score"])
        untried = rows["status"] != "ok"
    else:
        stood, untried = withstood(rows)
        standing = np.nansum(stood, axis=1) > 0
    return bool(standing.any() and untried[standing].all() and not _broken(rows))


def _broken(rows: Rows) -> bool:
    """Whether the attack turned anything wrong."""
    fell = (rows["clean_score"] > rows["score"]) & (rows["status"] == "ok")
    return bool(fell.any())
