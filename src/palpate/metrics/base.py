"""Metric base: from the columns of one cell to something that can be estimated with an interval.

A metric does no statistics. It says what is averaged over what; `palpate.statistics` knows the
sampling design (patients, trials) and adds the interval. Non-finite outputs are never a decision:
they count as wrong in every metric.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

Rows = Mapping[str, NDArray[Any]]
"""Columns of one cell, as `Record.samples` returns them, in the order of (trial, sample), plus
`clean_score` (rows,) and `clean_decision` (rows, width) of the same sample in the target's clean
cell: NaN and -1 where there is none; `clean_region_overlap`, `_decided`, `_expected`, `_found`
(rows, classes) of masks, 0 where there is none."""

Values = NDArray[np.float64]

CLASSES: Final = frozenset({"classification"})
LABELS: Final = frozenset({"classification", "multi_label"})
DENSE: Final = frozenset({"segmentation", "prompted_segmentation"})
INPUTS: Final = frozenset({"none", "attacks", "corruptions", "occlusions"})
ATTACKS: Final = frozenset({"attacks"})
FAULTS: Final = frozenset({"faults"})
DISTURBED: Final = (INPUTS - {"none"}) | FAULTS
ALL: Final = INPUTS | DISTURBED


@dataclass(frozen=True)
class TaskInfo:
    """What the dataset's task is, as the run manifest states it.

    Attributes:
        kind: "classification", "multi_label", "segmentation" or "prompted_segmentation".
        classes: names, in the order of the probabilities.
        positive: index of the class that sensitivity speaks of; None for the macro average.
    """

    kind: str
    classes: tuple[str, ...]
    positive: int | None = None


@dataclass(frozen=True)
class Share:
    """Mean of values in [0, 1], one per row; NaN rows do not count.

    Attributes:
        values: (rows,).
    """

    values: Values


@dataclass(frozen=True)
class Macro:
    """Unweighted mean of shares over different rows, such as the recall of each class.

    Attributes:
        parts: one share per class.
    """

    parts: tuple[Share, ...]


@dataclass(frozen=True)
class Ratio:
    """Sum of numerators over sum of denominators; NaN rows do not count.

    Attributes:
        numerator: (rows,).
        denominator: (rows,), zero or more.
        low: smallest value possible.
        high: largest value possible.
    """

    numerator: Values
    denominator: Values
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Functional:
    """Any function of the weighted rows, in [0, 1].

    Attributes:
        evaluate: weights (resamples, rows) -> values (resamples,), NaN where undefined.
        rows: number of rows.
        smallest: rows of the smallest group that the value rests on (the rarest class).
        no_interval: why resampling would give no honest interval; empty where it does.
    """

    evaluate: Callable[[Values], Values]
    rows: int
    smallest: int
    no_interval: str = ""


Measurement = Share | Macro | Ratio | Functional


@dataclass(frozen=True)
class Metric(ABC):
    """Base of all metrics.

    Class attributes:
        tasks: kinds of task that it applies to.
        families: perturbation families that it applies to, "none" being the clean cell.
        essential: always computed where it applies, even when the audit file does not ask.
        needs_clean: compares with the target's clean cell.
        needs_regions: reads the numbers per class of a mask, which runs of version 1 lack.
        needs_pixels: reads the counts of pixels of a mask, which runs before version 3 lack.
        needs_proof: reads certificates, which only a defence that proves its answers gives.
        by_size: is also estimated for samples with a small and with a large lesion apart.
        of_worst: is also estimated over each sample's worst answer to all attacks of one budget.
        per_class: is also estimated for each foreground class of a dense task that has several.
        better: which direction is good.
        meaning: definition for the report's glossary.
    """

    family: ClassVar[str] = "metrics"
    tasks: ClassVar[frozenset[str]]
    families: ClassVar[frozenset[str]]
    essential: ClassVar[bool] = False
    needs_clean: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = False
    needs_pixels: ClassVar[bool] = False
    needs_proof: ClassVar[bool] = False
    by_size: ClassVar[bool] = False
    of_worst: ClassVar[bool] = False
    per_class: ClassVar[bool] = False
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    meaning: ClassVar[str]

    @abstractmethod
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        """Say what is averaged over what, for the rows of one cell (one row at least)."""

    def note(self, rows: Rows) -> str:
        """What a reader of the value must know of these rows; empty for nothing."""
        del rows
        return ""

    def applies(self, *, task: str, family: str) -> bool:
        """Whether the metric means something for this kind of task and perturbation family."""
        return task in self.tasks and family in self.families


def right(rows: Rows, prefix: str = "") -> NDArray[np.bool_]:
    """Which labels were decided rightly: (rows, labels), one label for classification.

    A missing decision (non-finite output, stored as -1) is never right.

    Args:
        rows: columns of one cell.
        prefix: "clean_" for the decisions of the clean cell.
    """
    decisions, references = rows[f"{prefix}decision"], rows["reference"]
    if decisions.shape[1] == 0:  # every output of the cell was non-finite
        return np.zeros(references.shape, dtype=bool)
    return (decisions == references) & (references >= 0)


def macro_recall(rows: Rows) -> Macro:
    """Mean over the classes present of the share of each that was decided rightly."""
    present = sorted(set(rows["reference"][:, 0].tolist()))
    return Macro(tuple(recall_of(rows, label) for label in present))


def recall_of(rows: Rows, label: int) -> Share:
    """Share of the rows of one class that were decided as that class."""
    here = rows["reference"][:, 0] == label
    return Share(np.where(here, right(rows)[:, 0], np.nan))


def beyond_recall_of(rows: Rows, label: int) -> Share:
    """Share of the rows of other classes that got a decision, and not this class."""
    there = rows["reference"][:, 0] != label
    decided = rows["decision"][:, 0] if rows["decision"].shape[1] else np.full(len(there), -1)
    return Share(np.where(there, (decided >= 0) & (decided != label), np.nan))


def absent_classes(rows: Rows) -> str:
    """Says of how many classes there is no sample; empty where there is one of each."""
    present, classes = len(np.unique(rows["reference"][:, 0])), rows["probabilities"].shape[1]
    return f"no sample of {classes - present} of {classes} classes" if present < classes else ""


def withstood(rows: Rows) -> tuple[Values, NDArray[np.bool_]]:
    """What survived an attack, per label, worst over the trials of each sample.

    Returns:
        Right when clean and under every trial (rows, labels), in the first row of each sample and
        NaN in the others; and whether the attack could act on the sample in no trial although it
        still stands (rows,).
    """
    samples = np.unique(rows["sample"], return_inverse=True)[1]
    now, before = right(rows), right(rows, "clean_")
    acted = (rows["status"] == "ok")[:, None] | ~now
    count = int(samples.max()) + 1
    stood = np.ones((count, now.shape[1]), dtype=bool)
    tried = np.zeros((count, now.shape[1]), dtype=bool)
    np.logical_and.at(stood, samples, now & before)
    np.logical_or.at(tried, samples, acted)
    first = np.zeros(len(samples), dtype=bool)
    first[np.unique(samples, return_index=True)[1]] = True
    values = np.where(first[:, None], stood[samples], np.nan)
    untried = (stood & ~tried)[samples].any(axis=1) & first
    return values, untried
