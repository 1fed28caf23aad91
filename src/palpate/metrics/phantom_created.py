"""Phantom created: share of the lesion-free samples in which a disturbance makes a lesion up."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics._happened import MaskHappening
from palpate.metrics._masks import clean_region, region
from palpate.metrics.base import Rows


@final
@dataclass(frozen=True)
class PhantomCreated(MaskHappening):
    """Share of the samples, empty in the reference and in the clean answer, that are marked now.

    A single pixel counts; per class where there are several.
    """

    kind: ClassVar[str] = "empty in reference and clean answer"
    meaning: ClassVar[str] = (
        "Share of the samples whose reference is empty, and for which the clean answer is empty,"
        " in which the disturbed answer marks something, a single pixel included. Non-finite"
        " output: counted as marked. Samples with a lesion, or with a false alarm when clean"
        " already, are left out (valid n/N)."
    )

    @override
    def counts(self, rows: Rows) -> NDArray[np.bool_]:
        # a clean answer that was not finite marks nothing either, and scores 0
        answered = (rows["clean_score"] > 0)[:, None]
        return (region(rows, "expected") == 0) & (clean_region(rows, "decided") == 0) & answered

    @override
    def happened(self, rows: Rows) -> NDArray[np.bool_]:
        return region(rows, "decided") > 0
