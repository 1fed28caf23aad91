"""Dice: overlap of decided and reference masks."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import finite, has_regions, region, sample_dice
from palpate.metrics.base import ALL, DENSE, Measurement, Metric, Ratio, Rows, TaskInfo


@final
@dataclass(frozen=True)
class Dice(Metric):
    """Mean over samples of the Dice score, itself a mean over the foreground classes.

    Both masks empty: 1; one empty: 0; non-finite output: 0.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = ALL
    essential: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    by_size: ClassVar[bool] = True
    of_worst: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Mean over samples of 2 |A and B| / (|A| + |B|) of decided and reference mask, averaged"
        " over the foreground classes. Both empty: 1; one empty: 0; non-finite output: 0."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        score = sample_dice(rows)
        return Ratio(score, np.ones_like(score))

    @override
    def note(self, rows: Rows) -> str:
        if not has_regions(rows):
            return ""
        drawn = (region(rows, "decided") + region(rows, "expected")).sum(axis=1)
        empty = int(((drawn == 0) & finite(rows)[:, 0]).sum())
        return f"both masks empty in {empty} of {len(drawn)}, which counts as 1" if empty else ""
