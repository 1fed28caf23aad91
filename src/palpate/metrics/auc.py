"""Area under the receiver operating characteristic, as MedMNIST averages it."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.metrics.base import (
    INPUTS,
    LABELS,
    Functional,
    Measurement,
    Metric,
    Rows,
    TaskInfo,
    Values,
    absent_classes,
)

_NEAR_ONE = 0.999


@final
@dataclass(frozen=True)
class Auc(Metric):
    """Chance that a positive ranks above a negative, ties counting one half.

    Two classes: the AUC of the second class, which equals that of the first. More: macro mean one
    against the rest. Multi-label: macro mean over the labels. Labels that are all positive or all
    negative are left out. Several trials: mean of the AUC of each. A sample without finite output
    ranks last if positive and first if negative: the worst rank it could have.
    """

    tasks: ClassVar[frozenset[str]] = LABELS
    families: ClassVar[frozenset[str]] = INPUTS
    meaning: ClassVar[str] = (
        "Chance that a positive sample gets a higher probability than a negative one (area under"
        " the ROC curve); more than two classes: mean of one against the rest; multi-label: mean"
        " over the labels. A non-finite output counts as the worst rank possible."
    )

    @override
    def measure(self, rows: Rows, task: TaskInfo) -> Measurement:
        positive = _positives(rows, task)
        scores = _scores(rows, positive, task)
        trials = [rows["trial"] == trial for trial in np.unique(rows["trial"])]
        per_label = np.minimum(positive.sum(axis=0), (~positive).sum(axis=0))
        usable = np.flatnonzero(per_label > 0)

        def evaluate(weights: Values) -> Values:
            if not len(usable):
                return np.full(len(weights), np.nan)
            areas = [
                weighted_auc(scores[rows_of, label], positive[rows_of, label], weights[:, rows_of])
                for rows_of in trials
                for label in usable
            ]
            return np.mean(areas, axis=0)

        smallest = int(per_label[usable].min()) // max(len(trials), 1) if len(usable) else 0
        return Functional(evaluate, len(scores), smallest)

    @override
    def note(self, rows: Rows) -> str:
        labels = rows["reference"].shape[1]
        if labels == 1:
            return absent_classes(rows)
        share = (rows["reference"] == 1).mean(axis=0)
        alike = int(((share == 0) | (share == 1)).sum())
        return f"{alike} of {labels} labels without a positive or a negative" if alike else ""


def weighted_auc(scores: Values, positive: NDArray[np.bool_], weights: Values) -> Values:
    """AUC of weighted samples, for many weightings at once.

    Args:
        scores: (n,), may be infinite.
        positive: (n,).
        weights: (resamples, n), zero or more.

    Returns:
        (resamples,) in [0, 1]; NaN where one side has no weight.
    """
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
    ranked, marks = weights[:, order], positive[order]
    up = np.add.reduceat(np.where(marks, ranked, 0.0), starts, axis=1)
    down = np.add.reduceat(np.where(marks, 0.0, ranked), starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    wins = (up * (below + down / 2)).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _positives(rows: Rows, task: TaskInfo) -> NDArray[np.bool_]:
    references = rows["reference"]
    if task.kind == "multi_label":
        return references == 1
    labels = [1] if len(task.classes) == 2 else list(range(len(task.classes)))
    return references[:, :1] == np.array(labels)


def _scores(rows: Rows, positive: NDArray[np.bool_], task: TaskInfo) -> Values:
    probabilities = rows["probabilities"].astype(np.float64)
    worst = np.where(positive, -np.inf, np.inf)
    if probabilities.shape[1] == 0:
        return worst
    binary = positive.shape[1] == 1 < probabilities.shape[1]
    if task.kind != "multi_label":
        probabilities = _apart(probabilities)
    chosen = probabilities[:, 1:2] if binary else probabilities
    lost = ~rows["finite"].astype(bool)[:, None] | np.isnan(chosen)
    return np.where(lost, worst, chosen)


def _apart(probabilities: Values) -> Values:
    """Log odds that stay apart near 1, where float32 is coarse and would make ties.

    There the others' sum is used, which is small and therefore fine.
    """
    others = probabilities @ (1.0 - np.eye(probabilities.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.log(probabilities) - np.log1p(-probabilities)
        near_one = np.log1p(-others) - np.log(others)
    return np.where(probabilities > _NEAR_ONE, near_one, plain)
