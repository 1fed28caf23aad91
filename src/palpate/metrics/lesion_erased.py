"""Lesion erased: share of the lesions found on the clean image that are no longer found."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics._happened import MaskHappening
from palpate.metrics._masks import clean_region, region
from palpate.metrics.base import Rows
from palpate.regions import DETECTED


@final
@dataclass(frozen=True)
class LesionErased(MaskHappening):
    """Share of the samples in which nothing of what was found before is found any more.

    It is over the samples (per class) whose reference has a lesion that the clean answer found.
    """

    by_size: ClassVar[bool] = True
    kind: ClassVar[str] = "lesion found on the clean image"
    meaning: ClassVar[str] = (
        "Share of the samples with a lesion in the reference, at least one of them found on the"
        " clean image, in which the disturbed answer finds none: it is empty, or lies elsewhere."
        f" Found: {DETECTED:.0%} or more of a connected part covered. Non-finite output: erased."
        " Samples without a lesion, or with none found when clean, are left out (valid n/N)."
    )

    @override
    def counts(self, rows: Rows) -> NDArray[np.bool_]:
        return (region(rows, "expected") > 0) & (clean_region(rows, "found") > 0)

    @override
    def happened(self, rows: Rows) -> NDArray[np.bool_]:
        return region(rows, "found") <= 0
