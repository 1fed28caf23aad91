import numpy as np
import pytest

from palpate.metrics.relative_drop import RelativeDrop


def test_is_the_drop_of_the_mean_score_over_the_clean_one(make_rows, binary, value):
    rows = make_rows([0, 0, 1, 1], [0, 1, 0, 1], clean=[0, 0, 1, 0])
    assert value(RelativeDrop().measure(rows, binary), rows) == pytest.approx((3 - 2) / 3)


def test_is_negative_where_the_disturbance_helped(make_rows, binary, value):
    rows = make_rows([0, 1], [0, 1], clean=[0, 0])
    assert value(RelativeDrop().measure(rows, binary), rows) == pytest.approx(-1.0)


def test_no_clean_score_has_no_value(make_rows, binary, value):
    rows = make_rows([0, 1], [0, 1], clean_score=np.full(2, np.nan))
    assert value(RelativeDrop().measure(rows, binary), rows) is None
