"""Consistency: how far the mask of the disturbed question or image agrees with the clean one.

Dice of two masks follows from their sizes and from the pixels in which they differ:
2 |A and B| = |A| + |B| - |A xor B|. Planes that do not exclude each other are taken together.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics._masks import clean_region, region
from palpate.metrics.base import DENSE, DISTURBED, Measurement, Metric, Ratio, Rows, TaskInfo


@final
@dataclass(frozen=True)
class Consistency(Metric):
    """Mean Dice of the answer with the same model's clean answer; the reference plays no part.

    With another wording of the same question: agreement between paraphrases.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = DISTURBED
    needs_clean: ClassVar[bool] = True
    needs_regions: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Mean over samples of the Dice between the mask under the disturbance and the clean mask of"
        " the same model, whatever the reference says; under another wording of the question, how"
        " far the answers agree. Both masks empty: 1; one empty, or non-finite output: 0. Not"
        " defined for several classes of which each pixel has one, nor where the disturbance moves"
        " the masks."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        agreed = agreement(rows, task)
        return Ratio(agreed, np.ones(len(agreed)))


def agreement(rows: Rows, task: TaskInfo) -> NDArray[np.float64]:
    """Dice with the clean answer per row; NaN where the counts do not tell.

    Where each pixel has one of several classes, a change from one to another counts as one pixel,
    as does one from the background, so that the overlap cannot be told. Where a disturbance carries
    the masks along, the size of the carried clean mask is not known.

    Args:
        rows: columns of one cell with those of the clean one.
        task: of the data.
    """
    decided, before = region(rows, "decided"), clean_region(rows, "decided")
    if decided.shape[1] > 1 and len(task.classes) > decided.shape[1]:
        return np.full(len(decided), np.nan)
    total = (decided + before).sum(axis=1)
    differing = rows["changed_pixels"].astype(np.float64)
    shares = np.where(total > 0, (total - differing) / np.maximum(total, 1), 1.0)
    shares = np.where(rows["finite"].astype(bool), shares, 0.0)
    stayed = (region(rows, "expected") == clean_region(rows, "expected")).all(axis=1)
    known = stayed & (rows["pixels"] > 0) & ~np.isnan(rows["clean_score"])
    return np.where(known, np.clip(shares, 0.0, 1.0), np.nan)
