import numpy as np
import pytest

from palpate.metrics.base import TaskInfo


@pytest.fixture
def make_rows():
    """Rows of one cell from references and decisions; -1 is a non-finite output."""

    def make(reference, decision, *, clean=None, probabilities=None, status=None, **columns):
        reference, decision = (
            np.atleast_2d(np.asarray(x, dtype=np.int32).T).T for x in (reference, decision)
        )
        count = len(reference)
        clean = (
            reference
            if clean is None
            else np.asarray(clean, dtype=np.int32).reshape(reference.shape)
        )
        finite = (decision >= 0).all(axis=1)
        if probabilities is None:
            probabilities = np.full((count, int(reference.max()) + 1), 0.5, dtype=np.float32)
        rows = {
            "sample": np.array([f"s{i}" for i in range(count)]),
            "case": np.array([f"c{i}" for i in range(count)]),
            "trial": np.zeros(count, dtype=np.int32),
            "reference": reference,
            "decision": decision,
            "probabilities": np.asarray(probabilities, dtype=np.float32),
            "score": (decision == reference).mean(axis=1).astype(np.float32),
            "finite": finite,
            "verdict": np.full(count, "masked"),
            "status": np.full(count, "ok") if status is None else np.asarray(status),
            "clean_decision": clean,
            "clean_score": (clean == reference).mean(axis=1),
        }
        return rows | columns

    return make


@pytest.fixture
def binary():
    return TaskInfo("classification", ("malignant", "benign"), positive=0)


@pytest.fixture
def several():
    return TaskInfo("classification", ("a", "b", "c"))


@pytest.fixture
def labels():
    return TaskInfo("multi_label", ("a", "b", "c"))


@pytest.fixture
def value():
    """Value of a measurement on all rows."""
    from palpate.statistics.estimate import Design
    from palpate.statistics.measure import estimate

    def of(measured, rows, *, crossed=False):
        cases, trials = (np.unique(rows[k], return_inverse=True)[1] for k in ("case", "trial"))
        design = Design(cases, trials, crossed)
        return estimate(measured, design, confidence=0.95, resamples=200, name="test").value

    return of
