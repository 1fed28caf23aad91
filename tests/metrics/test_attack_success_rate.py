import numpy as np
import pytest

from palpate.metrics.accuracy import Accuracy
from palpate.metrics.attack_success_rate import AttackSuccessRate
from palpate.metrics.robust_accuracy import RobustAccuracy


def test_is_over_the_samples_right_when_clean(make_rows, binary, value):
    rows = make_rows([0, 0, 1, 1], [0, 1, 1, 1], clean=[0, 0, 0, 1])
    assert value(AttackSuccessRate().measure(rows, binary), rows) == pytest.approx(1 / 3)


def test_robust_is_clean_times_one_minus_success(make_rows, binary, value):
    rng = np.random.default_rng(0)
    reference, now, clean = rng.integers(0, 2, (3, 80))
    rows = make_rows(reference, now, clean=clean)
    before = value(Accuracy().measure(make_rows(reference, clean), binary), rows)
    success = value(AttackSuccessRate().measure(rows, binary), rows)
    robust = value(RobustAccuracy().measure(rows, binary), rows)
    assert robust == pytest.approx(before * (1 - success))


def test_what_could_not_be_attacked_is_left_out(make_rows, binary, value):
    rows = make_rows([0, 0, 1], [0, 1, 1], status=["no gradient", "ok", "ok"])
    assert value(AttackSuccessRate().measure(rows, binary), rows) == pytest.approx(1 / 2)


def test_a_success_counts_whatever_the_status_says(make_rows, binary, value):
    rows = make_rows([0, 0], [1, 0], status=["no gradient", "ok"])
    assert value(AttackSuccessRate().measure(rows, binary), rows) == pytest.approx(1 / 2)


def test_nothing_right_when_clean_has_no_value(make_rows, binary, value):
    rows = make_rows([0, 1], [1, 0], clean=[1, 0])
    assert value(AttackSuccessRate().measure(rows, binary), rows) is None
