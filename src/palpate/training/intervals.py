"""Intervals of the clean scores on a card: the audit's own metrics and statistics."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from torch import Tensor

from palpate import registry
from palpate.metrics.base import TaskInfo
from palpate.statistics.estimate import Design, codes
from palpate.statistics.measure import estimate

CONFIDENCE: Final = 0.95
_METRICS: Final = ("accuracy", "balanced_accuracy", "auc")
RESAMPLES: Final = 2000


def intervals(
    logits: Tensor, labels: Tensor, *, classes: tuple[str, ...], cases: Sequence[str] | None = None
) -> dict[str, list[float] | None]:
    """Low and high end of accuracy, balanced accuracy and AUC, as an audit's clean cell has them.

    Args:
        logits: (n, classes).
        labels: (n,).
        classes: names.
        cases: patient or other unit of independence per row; each row its own by default.

    Returns:
        None for a metric that has no honest interval.
    """
    n = len(labels)
    single = np.zeros(n, dtype=np.intp)
    rows = {
        "reference": labels.numpy()[:, None],
        "decision": logits.argmax(1).numpy()[:, None],
        "probabilities": logits.double().softmax(1).numpy(),
        "finite": logits.isfinite().all(1).numpy(),
        "trial": single,
    }
    design = Design(np.arange(n) if cases is None else codes(np.array(cases)), single)
    task = TaskInfo("classification", classes)
    found: dict[str, list[float] | None] = {}
    for name in _METRICS:
        measured = registry.create("metrics", name).measure(rows, task)
        one = estimate(measured, design, confidence=CONFIDENCE, resamples=RESAMPLES, name=name)
        found[name] = None if one.low is None or one.high is None else [one.low, one.high]
    return found
