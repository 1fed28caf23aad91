"""Phantom created: share of the lesion-free samples in which a disturbance makes a lesion up."""

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


@final
@dataclass(frozen=True)
class PhantomCreated(Metric):
    """Share of the samples, empty in the reference and in the clean answer, that are marked now.

    A single pixel counts; per class where there are several.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = DISTURBED
    needs_clean: ClassVar[bool] = True
    needs_regions: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Share of the samples whose reference is empty, and for which the clean answer is empty,"
        " in which the disturbed answer marks something, a single pixel included. Non-finite"
        " output: counted as marked. Samples with a lesion, or with a false alarm when clean"
        " already, are left out (valid n/N)."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        marked = (region(rows, "decided") > 0) | ~finite(rows)
        return Share(mean_over_classes(np.where(_was_empty(rows), marked, np.nan)))

    @override
    def note(self, rows: Rows) -> str:
        empty = _was_empty(rows)
        return f"valid {int(empty.sum())}/{empty.size}: empty in reference and clean answer"


def _was_empty(rows: Rows) -> NDArray[np.bool_]:
    return (region(rows, "expected") == 0) & (clean_region(rows, "decided") == 0)
