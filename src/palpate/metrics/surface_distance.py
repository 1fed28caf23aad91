"""Normalised surface distance: how much of the outlines lies where it should."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import MaskMetric, finite, region
from palpate.metrics.base import Rows, Values
from palpate.regions import TOLERANCE


@final
@dataclass(frozen=True)
class SurfaceDistance(MaskMetric):
    """Surface Dice of Nikolov et al. (J Med Internet Res 23:e26151, 2021) at a fixed tolerance."""

    meaning: ClassVar[str] = (
        f"Mean over samples of the share of both outlines that lies within {TOLERANCE:g} pixels of"
        " the other (normalised surface distance), averaged over the foreground classes. Both"
        " empty: 1; one empty: 0; non-finite output: 0."
    )

    @override
    def values(self, rows: Rows) -> Values:
        return np.where(finite(rows), region(rows, "surface"), 0.0)
