"""Certified accuracy: share of answers proved right within an L2 radius."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from palpate.errors import ConfigError
from palpate.metrics.base import DENSE, LABELS, Measurement, Metric, Rows, Share, TaskInfo
from palpate.registry import Number


@final
@dataclass(frozen=True)
class CertifiedAccuracy(Metric):
    """Cohen, Rosenfeld, Kolter, arXiv 1902.02918, section 4; abstaining is not certified.

    Attributes:
        radius: L2, in units of the bounds.
    """

    tasks: ClassVar[frozenset[str]] = LABELS | DENSE
    families: ClassVar[frozenset[str]] = frozenset({"none"})
    needs_proof: ClassVar[bool] = True
    meaning: ClassVar[str] = (
        "Share of all samples whose answer is right and proved not to change under any change of"
        " the image up to this L2 size; of masks and labels, share of the pixels or labels."
        " Answers without a proof count as not proven."
    )

    radius: Number = 0.0

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ConfigError(f"radius: expected 0 or more, got {self.radius}")

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        far = rows["radius"] >= self.radius
        proved = np.where(far, rows["certified"], 0.0).astype(float)
        return Share(np.where(np.isnan(rows["certified"]), np.nan, proved))

    @override
    def note(self, rows: Rows) -> str:
        if np.isnan(rows["certified"]).all():
            return "the model proves nothing of its answers"
        return f"abstained from {float(np.nanmean(rows['abstained'])):.1%}"
