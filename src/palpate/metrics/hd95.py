"""HD95: how far the outlines are apart, leaving out the worst twentieth."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from typing_extensions import override

from palpate.metrics._masks import MaskMetric, finite, region
from palpate.metrics.base import INPUTS, Rows, Values


@final
@dataclass(frozen=True)
class Hd95(MaskMetric):
    """Mean of the 95th percentile of the symmetric Hausdorff distance, in pixels.

    Where one mask is empty there is no distance; leaving such masks out would praise an attack that
    emptied them (as monai 1.6.1 does), so they count as the diagonal of the image.
    """

    families: ClassVar[frozenset[str]] = INPUTS
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Mean over samples of the 95th percentile of the distances between the outlines of decided"
        " and reference mask, the larger of both directions, in pixels of the model's input,"
        " averaged over the foreground classes. One empty, or non-finite output: the diagonal of"
        " the image; both empty: left out. The note says how many distances are real (valid n/N)."
    )

    @override
    def values(self, rows: Rows) -> Values:
        return region(rows, "hd95")

    @override
    def note(self, rows: Rows) -> str:
        drawn, wanted = region(rows, "decided") > 0, region(rows, "expected") > 0
        valid = int((drawn & wanted & finite(rows)).sum())
        worst = int((~np.isnan(self.values(rows))).sum()) - valid
        text = f"valid {valid}/{drawn.size}"
        if worst:
            text += f", {worst} with one mask empty or no output count as the image's diagonal"
        if left := drawn.size - valid - worst:
            text += f", {left} with both masks empty left out"
        return text
