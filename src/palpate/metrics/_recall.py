"""Base of the metrics that are recalls of classes."""

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from palpate.metrics.base import CLASSES, INPUTS, Metric, Rows, absent_classes


@dataclass(frozen=True)
class RecallMetric(Metric):
    """A share of the samples of some classes; its note says which have none."""

    tasks: ClassVar[frozenset[str]] = CLASSES
    families: ClassVar[frozenset[str]] = INPUTS

    @override
    def note(self, rows: Rows) -> str:
        return absent_classes(rows)
