"""Metrics of what a disturbance did to masks that were as they should be when clean."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics._masks import finite, mean_over_classes
from palpate.metrics.base import DENSE, DISTURBED, Measurement, Metric, Rows, Share, TaskInfo


@dataclass(frozen=True)
class MaskHappening(Metric):
    """Share of the samples, of a certain kind when clean, to which something happened.

    Per class where there are several; a non-finite output counts as if it had happened.

    Class attributes:
        kind: the samples that count, in words.
    """

    tasks: ClassVar[frozenset[str]] = DENSE
    families: ClassVar[frozenset[str]] = DISTURBED
    needs_clean: ClassVar[bool] = True
    needs_regions: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    kind: ClassVar[str]

    @abstractmethod
    def counts(self, rows: Rows) -> NDArray[np.bool_]:
        """(rows, classes) which are of that kind."""

    @abstractmethod
    def happened(self, rows: Rows) -> NDArray[np.bool_]:
        """(rows, classes) to which it happened."""

    @final
    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        happened = self.happened(rows) | ~finite(rows)
        return Share(mean_over_classes(np.where(self.counts(rows), happened, np.nan)))

    @final
    @override
    def note(self, rows: Rows) -> str:
        counted = self.counts(rows)
        return f"valid {int(counted.sum())}/{counted.size}: {self.kind}"
