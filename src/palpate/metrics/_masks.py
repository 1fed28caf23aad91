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
CLEAN_PREFIX: Final = "clean_region_"
SMALL: Final = 0.05
"""Largest share of the image that a small lesion covers."""
SIZES: Final = {
    "small lesions": f"images whose reference covers at most {SMALL:.0%}, but something",
    "large lesions": f"images whose reference covers more than {SMALL:.0%}",
}
"""Parts of the rows by the size of the reference mask, with what they are."""


def region(rows: Rows, name: str) -> Values:
    """One number per row and foreground class, such as "overlap"."""
    return rows[PREFIX + name].astype(np.float64)


def clean_region(rows: Rows, name: str) -> Values:
    """The same number of the clean answer to the same sample: "decided" or "found"."""
    return rows[CLEAN_PREFIX + name].astype(np.float64)


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
        prefixes = (PREFIX, CLEAN_PREFIX)
        own = {n: c[:, k : k + 1] for n, c in rows.items() if n.startswith(prefixes)}
        yield name, {**rows, **own}


def has_pixels(rows: Rows) -> bool:
    """Whether the pixels of the masks were counted, which runs before version 3 did not."""
    return "pixels" in rows and bool((rows["pixels"] > 0).all())


def by_size(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Rows of each of `SIZES` that there are; none where the size of the images is not known."""
    if not (has_regions(rows) and has_pixels(rows)):
        return
    share = region(rows, "expected").sum(axis=1) / rows["pixels"]
    small, large = SIZES
    for name, own in ((small, (share > 0) & (share <= SMALL)), (large, share > SMALL)):
        if own.any():
            yield name, {column: values[own] for column, values in rows.items()}


def mean_over_classes(values: Values) -> Values:
    """(rows,) mean of those of (rows, classes) that are not NaN; NaN where there is none."""
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0.0).sum(axis=1)
    number = counted.sum(axis=1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def sample_dice(rows: Rows, *, clean: bool = False) -> Values:
    """Dice per row, averaged over the classes; that of the class where there is one alone.

    Args:
        rows: columns of one cell, or of one class of it.
        clean: of the clean answer to the same sample; NaN where it is not known.
    """
    single = has_regions(rows) and rows[PREFIX + "overlap"].shape[1] == 1
    if clean:
        if not single or CLEAN_PREFIX + "overlap" not in rows:
            return rows["clean_score"].astype(np.float64)
        total = clean_region(rows, "decided") + region(rows, "expected")
        overlap = clean_region(rows, "overlap")
        shares = np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)[:, 0]
        return np.where(np.isnan(rows["clean_score"]), np.nan, shares)
    if single:
        return dice(rows)[:, 0]
    return np.where(rows["finite"].astype(bool), rows["score"], 0.0).astype(np.float64)


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
        means = mean_over_classes(self.values(rows))
        largest = float(np.nanmax(means, initial=1.0))
        return Ratio(means, np.ones_like(means), high=largest)
