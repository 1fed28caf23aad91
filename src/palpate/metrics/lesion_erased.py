"""Lesion erased: share of the lesions found on the clean image that are no longer found."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics._masks import clean_region, finite, mean_over_classes, region
from palpate.metrics.base import (
    DENSE,
    DISTURBED,
    Measurement,
    Metric,
    Rows,
    Share,
    TaskInfo,
)
from palpate.regions import DETECTED


@final
@dataclass(frozen=True)
class LesionErased(Metric):
    """Share of the samples in which nothing of what was found before is found any more.

    It is over the samples (per class) whose reference has a lesion that the clean answer found.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = DISTURBED
    needs_clean: ClassVar[bool] = True
    needs_regions: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    by_size: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Share of the samples with a lesion in the reference, at least one of them found on the"
        " clean image, in which the disturbed answer finds none: it is empty, or lies elsewhere."
        f" Found: {DETECTED:.0%} or more of a connected part covered. Non-finite output: erased."
        " Samples without a lesion, or with none found when clean, are left out (valid n/N)."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        erased = (region(rows, "found") <= 0) | ~finite(rows)
        return Share(mean_over_classes(np.where(_had(rows), erased, np.nan)))

    @override
    def note(self, rows: Rows) -> str:
        had = _had(rows)
        return f"valid {int(had.sum())}/{had.size}: lesion found on the clean image"


def _had(rows: Rows) -> NDArray[np.bool_]:
    return (region(rows, "expected") > 0) & (clean_region(rows, "found") > 0)
