import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from palpate.metrics.balanced_accuracy import BalancedAccuracy


def test_equals_scikit_learn(make_rows, several, value):
    rng = np.random.default_rng(0)
    reference, decision = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    rows = make_rows(reference, decision)
    expected = balanced_accuracy_score(reference, decision)
    assert value(BalancedAccuracy().measure(rows, several), rows) == pytest.approx(expected)


def test_a_missing_decision_is_wrong(make_rows, binary, value):
    rows = make_rows([0, 0, 1, 1], [-1, 0, 1, 1])
    assert value(BalancedAccuracy().measure(rows, binary), rows) == pytest.approx(0.75)
