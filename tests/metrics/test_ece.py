import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from palpate.errors import ConfigError
from palpate.metrics.ece import Ece


@pytest.mark.parametrize("bins", [10, 15])
def test_equals_torchmetrics(make_rows, several, value, bins):
    rng = np.random.default_rng(0)
    chances = rng.dirichlet([1, 1, 1], 200).astype(np.float32)
    reference = rng.integers(0, 3, 200)
    rows = make_rows(reference, chances.argmax(axis=1), probabilities=chances)
    expected = multiclass_calibration_error(
        torch.tensor(chances), torch.tensor(reference), num_classes=3, n_bins=bins, norm="l1"
    )
    assert value(Ece(bins=bins).measure(rows, several), rows) == pytest.approx(
        float(expected), abs=1e-6
    )


def test_a_sample_without_output_is_fully_confident_and_wrong(make_rows, binary, value):
    chances = np.array([[1.0, 0.0], [np.nan, np.nan]])
    rows = make_rows([0, 0], [0, -1], probabilities=chances)
    assert value(Ece().measure(rows, binary), rows) == pytest.approx(0.5)


def test_needs_a_bin():
    with pytest.raises(ConfigError, match="bins: expected 1 or more, got 0"):
        Ece(bins=0)


def test_carries_no_interval_and_says_what_perfect_calibration_shows(make_rows, binary):
    rng = np.random.default_rng(0)
    high = rng.uniform(0.5, 1.0, 156)
    chances = np.stack([1 - high, high], axis=1).astype(np.float32)
    reference = (rng.random(156) < high).astype(int)
    rows = make_rows(reference, np.ones(156, int), probabilities=chances)

    measured = Ece().measure(rows, binary)

    assert measured.no_interval.startswith(
        "no interval: biased; perfect calibration would show 0.0"
    )
    low, high_end = (
        float(part) for part in measured.no_interval.rpartition("show ")[2].split(" to ")
    )
    assert low < float(measured.evaluate(np.ones((1, 156)))[0]) < high_end
