"""Pixel success rate: share of the pixels whose decision an attack has made wrong, or changed."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from typing_extensions import override

from palpate.metrics.base import ALL, DENSE, Measurement, Metric, Ratio, Rows, TaskInfo


@final
@dataclass(frozen=True)
class PixelSuccessRate(Metric):
    """Mean over samples of the share of pixels that are wrong, or differ from the clean answer.

    An attack on masks succeeds at 0.99 of the wrong pixels in the literature (Rony, Pesquet, Ben
    Ayed, arXiv 2206.07179, section 5). A lesion of 1 % of the image can be lost at 0.01.

    Attributes:
        counting: "wrong" pixels, against the reference, or "changed" ones, against the clean
            answer.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = ALL
    needs_pixels: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = (
        "Mean over samples of the share of pixels whose class is wrong (counting: changed: differs"
        " from the clean answer); of each plane where classes do not exclude each other. Background"
        " counts like any class, so a lost small lesion hardly shows: read it beside lesion erased."
        " Non-finite output: every pixel."
    )

    counting: Literal["wrong", "changed"] = "wrong"

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        shares = rows[f"{self.counting}_pixels"] / np.maximum(rows["pixels"], 1)
        shares = np.where(rows["pixels"] > 0, shares, np.nan)
        return Ratio(shares, np.ones(len(shares)))
