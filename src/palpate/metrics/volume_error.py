"""Volume error: by how much the size of a mask is wrong, wherever it lies."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import MaskMetric, finite, region
from palpate.metrics.base import Rows, Values


@final
@dataclass(frozen=True)
class VolumeError(MaskMetric):
    """One less the volumetric similarity of Taha and Hanbury (BMC Medical Imaging 15:29, 2015).

    Unlike the difference relative to the reference it exists where the reference is empty.
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Mean over samples of ||A| - |B|| / (|A| + |B|) of decided and reference mask (one less the"
        " volumetric similarity), averaged over the foreground classes. Both empty: 0; one empty:"
        " 1; non-finite output: 1."
    )

    @override
    def values(self, rows: Rows) -> Values:
        decided, expected = region(rows, "decided"), region(rows, "expected")
        errors = np.abs(decided - expected) / np.maximum(decided + expected, 1)
        return np.where(finite(rows), errors, 1.0)
