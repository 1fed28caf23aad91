import numpy as np
import pytest

from palpate.metrics.accuracy import Accuracy


def test_a_missing_decision_is_wrong_and_never_class_0(make_rows, binary, value):
    rows = make_rows([0, 0, 1, 1], [-1, 0, 1, 0])
    assert value(Accuracy().measure(rows, binary), rows) == pytest.approx(2 / 4)


def test_all_outputs_non_finite(make_rows, binary, value):
    rows = make_rows([0, 0, 1], [-1, -1, -1]) | {"decision": np.empty((3, 0), dtype=np.int32)}
    assert value(Accuracy().measure(rows, binary), rows) == 0.0


def test_multi_label_is_the_share_of_right_labels(make_rows, labels, value):
    rows = make_rows([[1, 0, 0], [1, 1, 0]], [[1, 0, 1], [0, 1, 0]])
    assert value(Accuracy().measure(rows, labels), rows) == pytest.approx(4 / 6)


def test_dense_tasks_have_no_accuracy():
    assert not Accuracy().applies(task="segmentation", family="none")
