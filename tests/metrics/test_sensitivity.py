import numpy as np
import pytest
from sklearn.metrics import recall_score

from palpate.metrics.sensitivity import Sensitivity


def test_is_the_recall_of_the_positive_class(make_rows, binary, value):
    rng = np.random.default_rng(1)
    reference, decision = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    rows = make_rows(reference, decision)
    expected = recall_score(reference, decision, pos_label=0)
    assert value(Sensitivity().measure(rows, binary), rows) == pytest.approx(expected)


def test_without_a_positive_class_it_is_the_macro_recall(make_rows, several, value):
    rng = np.random.default_rng(2)
    reference, decision = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    rows = make_rows(reference, decision)
    expected = recall_score(reference, decision, average="macro")
    assert value(Sensitivity().measure(rows, several), rows) == pytest.approx(expected)


def test_a_missed_positive_without_output_counts_against_it(make_rows, binary, value):
    rows = make_rows([0, 0, 1], [-1, 0, 1])
    assert value(Sensitivity().measure(rows, binary), rows) == pytest.approx(0.5)


def test_no_positive_sample_has_no_value(make_rows, binary, value):
    rows = make_rows([1, 1], [1, 0])
    assert value(Sensitivity().measure(rows, binary), rows) is None
