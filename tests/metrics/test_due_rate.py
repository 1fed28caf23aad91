import numpy as np
import pytest

from palpate.metrics.due_rate import DueRate


def test_is_the_share_of_non_finite_outputs(make_rows, binary, value):
    verdict = np.array(["sdc", "masked", "due", "due"])
    rows = make_rows([0, 0, 1, 1], [1, 0, -1, -1], verdict=verdict)
    assert value(DueRate().measure(rows, binary), rows, crossed=True) == pytest.approx(1 / 2)
