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


@pytest.fixture
def mask_rows():
    """Rows of a dense cell from boolean masks (rows, classes, height, width), and the value."""
    from palpate.regions import compare, lost

    names = ("overlap", "decided", "expected", "hd95", "surface", "lesions", "found")

    def measured(decided, expected, finite):
        regions = [
            [compare(a, b) if ok else lost(b) for a, b in zip(d, e, strict=True)]
            for d, e, ok in zip(decided, expected, finite, strict=True)
        ]
        return {n: np.array([[getattr(r, n) for r in row] for row in regions]) for n in names}

    def scores(decided, expected, finite):
        overlap, total = (
            (decided & expected).sum((2, 3)),
            decided.sum((2, 3)) + expected.sum((2, 3)),
        )
        each = np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)
        return np.where(finite, each.mean(axis=1), 0.0)

    def make(decided, expected, *, finite=None, clean=None):
        decided, expected = np.asarray(decided), np.asarray(expected)
        count = len(decided)
        everywhere = np.ones(count, dtype=bool)
        finite = everywhere if finite is None else np.asarray(finite)
        clean = decided if clean is None else np.asarray(clean)
        empty = np.empty((count, 0))
        before = measured(clean, expected, everywhere)
        pixels = decided[0].size

        def differing(others):
            return np.where(finite, (decided != others).sum(axis=(1, 2, 3)), pixels)

        return {
            "sample": np.array([f"s{i}" for i in range(count)]),
            "case": np.array([f"c{i}" for i in range(count)]),
            "trial": np.zeros(count, dtype=np.int32),
            **dict.fromkeys(("reference", "decision", "probabilities"), empty),
            "finite": finite,
            "score": scores(decided, expected, finite),
            "pixels": np.full(count, pixels),
            "wrong_pixels": differing(expected),
            "changed_pixels": differing(clean),
            **{f"region_{n}": v for n, v in measured(decided, expected, finite).items()},
            "clean_score": scores(clean, expected, everywhere),
            **{f"clean_region_{n}": before[n] for n in ("overlap", "decided", "expected", "found")},
        }

    return make


@pytest.fixture
def disc():
    """A filled circle as a mask (height, width)."""

    def make(row, column, radius, side=32):
        rows, columns = np.ogrid[:side, :side]
        return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2

    return make


@pytest.fixture
def random_masks():
    """Smooth random masks, none of them empty."""
    from scipy.ndimage import gaussian_filter

    def make(count, classes=2, side=32, seed=0):
        rng = np.random.default_rng(seed)
        fields = gaussian_filter(rng.standard_normal((count, classes, side, side)), (0, 0, 2, 2))
        return fields > 0.1 * fields.std()

    return make


@pytest.fixture
def organs():
    return TaskInfo("segmentation", ("bowel", "stomach"))
