"""Dice below a bar: share of the samples whose mask is no longer of use."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from typing_extensions import override

from palpate.errors import ConfigError
from palpate.metrics._masks import sample_dice
from palpate.metrics.base import ALL, DENSE, Measurement, Metric, Rows, Share, TaskInfo
from palpate.registry import Number


@final
@dataclass(frozen=True)
class DiceBelow(Metric):
    """Share of the samples with a Dice below `bar`, broken by the disturbance or bad already.

    Attributes:
        bar: Dice in (0, 1].
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = ALL
    per_class: ClassVar[bool] = True
    by_size: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Share of the samples whose Dice, averaged over the foreground classes, is below the bar"
        " (0.5 unless stated). Both masks empty: Dice 1; one empty: 0; non-finite output: 0. The"
        " note says how many are below it on the clean image already."
    )

    bar: Number = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.bar <= 1:
            raise ConfigError(f"bar: expected a Dice above 0, at most 1, got {self.bar}")

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        return Share((sample_dice(rows) < self.bar).astype(np.float64))

    @override
    def note(self, rows: Rows) -> str:
        before = sample_dice(rows, clean=True)
        if np.isnan(before).any() or np.array_equal(before, sample_dice(rows)):
            return ""
        first = np.unique(rows["sample"], return_index=True)[1]
        return f"{int((before[first] < self.bar).sum())} of {len(first)} below it when clean"
