"""Intersection over union of decided and reference masks."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import MaskMetric, finite, region
from palpate.metrics.base import Rows, Values


@final
@dataclass(frozen=True)
class Iou(MaskMetric):
    """Mean over samples of the overlap over the union, averaged over the foreground classes."""

    meaning: ClassVar[str] = (
        "Mean over samples of |A and B| / |A or B| of decided and reference mask (Jaccard index),"
        " averaged over the foreground classes. Both empty: 1; one empty: 0; non-finite output: 0."
    )

    @override
    def values(self, rows: Rows) -> Values:
        overlap = region(rows, "overlap")
        union = region(rows, "decided") + region(rows, "expected") - overlap
        shares = np.where(union > 0, overlap / np.maximum(union, 1), 1.0)
        return np.where(finite(rows), shares, 0.0)
