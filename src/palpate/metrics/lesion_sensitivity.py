"""Lesion-wise sensitivity: share of the lesions that are found."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import finite, region
from palpate.metrics.base import ALL, DENSE, Measurement, Metric, Ratio, Rows, TaskInfo
from palpate.regions import DETECTED


@final
@dataclass(frozen=True)
class LesionSensitivity(Metric):
    """Connected parts of the reference of which enough is covered, over all such parts.

    The share to cover is that of Commowick et al. (Scientific Reports 8:13650, 2018).
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = ALL
    needs_regions: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    by_size: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Share of the lesions (connected parts of the reference mask, diagonals included) of which"
        f" the decided mask covers {DETECTED:.0%} or more, over all samples and foreground classes."
        " A lesion under a non-finite output is missed. It does not count false lesions."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        lesions = region(rows, "lesions").sum(axis=1)
        found = np.where(finite(rows), region(rows, "found"), 0.0).sum(axis=1)
        here = lesions > 0
        return Ratio(np.where(here, found, np.nan), np.where(here, lesions, np.nan))
