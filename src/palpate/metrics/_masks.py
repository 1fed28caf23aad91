"""Metrics of masks, from the numbers that each cell records per sample and class."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics.base import ALL, DENSE, Measurement, Metric, Ratio, Rows, TaskInfo, Values

PREFIX: Final = "region_"


def region(rows: Rows, name: str) -> Values:
    """One number per row and foreground class, such as "overlap"."""
    return rows[PREFIX + name].astype(np.float64)


def finite(rows: Rows) -> NDArray[np.bool_]:
    """Whether there was a decision at all, (rows, 1)."""
    return rows["finite"].astype(bool)[:, None]


def has_regions(rows: Rows) -> bool:
    """Whether the rows are of masks that were measured class by class."""
    return PREFIX + "overlap" in rows and rows[PREFIX + "overlap"].shape[1] > 0


def by_class(rows: Rows, task: TaskInfo) -> Iterator[tuple[str, Rows]]:
    """Name and rows of each foreground class, where there are several."""
    width = rows[PREFIX + "overlap"].shape[1] if has_regions(rows) else 0
    for k, name in enumerate(task.classes[len(task.classes) - width :] if width > 1 else ()):
        own = {n: c[:, k : k + 1] for n, c in rows.items() if n.startswith(PREFIX)}
        yield name, {**rows, **own}


def dice(rows: Rows) -> Values:
    """Dice per row and class: both empty 1, one empty 0, non-finite 0."""
    total = region(rows, "decided") + region(rows, "expected")
    shares = np.where(total > 0, 2 * region(rows, "overlap") / np.maximum(total, 1), 1.0)
    return np.where(finite(rows), shares, 0.0)


@dataclass(frozen=True)
class MaskMetric(Metric):
    """A value per sample and class, averaged over the classes, then over the samples."""

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = ALL
    needs_regions: ClassVar[bool] = True
    per_class: ClassVar[bool] = True

    @abstractmethod
    def values(self, rows: Rows) -> Values:
        """(rows, classes); NaN does not count."""

    @final
    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        values = self.values(rows)
        counted = ~np.isnan(values)
        number = counted.sum(axis=1)
        total = np.where(counted, values, 0.0).sum(axis=1)
        means = np.where(number > 0, total / np.maximum(number, 1), np.nan)
        largest = float(np.nanmax(means, initial=1.0))
        return Ratio(means, np.ones_like(means), high=largest)
