import numpy as np
import pytest
from sklearn.metrics import recall_score

from palpate.metrics.specificity import Specificity


def test_is_the_recall_of_the_other_class_when_there_are_two(make_rows, binary, value):
    rng = np.random.default_rng(1)
    reference, decision = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    rows = make_rows(reference, decision)
    expected = recall_score(reference, decision, pos_label=1)
    assert value(Specificity().measure(rows, binary), rows) == pytest.approx(expected)


def test_without_a_positive_class_it_is_macro_one_against_the_rest(make_rows, several, value):
    rng = np.random.default_rng(2)
    reference, decision = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    rows = make_rows(reference, decision)
    expected = np.mean([(decision[reference != c] != c).mean() for c in range(3)])
    assert value(Specificity().measure(rows, several), rows) == pytest.approx(expected)


def test_a_missing_decision_is_wrong_for_the_negatives_too(make_rows, binary, value):
    rows = make_rows([1, 1, 0], [-1, 1, 0])
    assert value(Specificity().measure(rows, binary), rows) == pytest.approx(0.5)


def test_one_class_only_has_no_value(make_rows, several, value):
    rows = make_rows([2, 2], [2, 1])
    assert value(Specificity().measure(rows, several), rows) is None
