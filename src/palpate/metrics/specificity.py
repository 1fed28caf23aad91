"""Specificity: share of the negative samples that are left alone."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics._recall import RecallMetric
from palpate.metrics.base import (
    Functional,
    Measurement,
    Rows,
    Share,
    TaskInfo,
    Values,
    beyond_recall_of,
    recall_of,
)


@final
@dataclass(frozen=True)
class Specificity(RecallMetric):
    """Share of the samples of other classes not decided as the positive class.

    Without a positive class: macro average one-vs-rest over the classes present. With two classes
    and a positive one this is the recall of the other class. A missing decision is wrong.
    """

    meaning: ClassVar[str] = (
        "Share of the samples that are not positive decided as not positive; where the task names"
        " no positive class, the mean of this over the classes. A non-finite output is wrong."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        if task.positive is not None:
            return beyond_recall_of(rows, task.positive)
        labels, counts = np.unique(rows["reference"][:, 0], return_counts=True)
        parts = [beyond_recall_of(rows, int(label)) for label in labels]
        rest = [p for p in parts if not np.isnan(p.values).all()]
        if not rest:
            return recall_of(rows, -1)
        return Functional(
            lambda weights: _macro(rest, weights), len(rows["trial"]), int(counts.min())
        )


def _macro(parts: list[Share], weights: Values) -> Values:
    shares: list[Values] = []
    for part in parts:
        counted = ~np.isnan(part.values)
        total = weights[:, counted].sum(axis=1)
        hits = weights[:, counted] @ part.values[counted]
        shares.append(np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0))
    return np.mean(shares, axis=0)
