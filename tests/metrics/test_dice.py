import numpy as np
import pytest

from palpate.metrics.base import TaskInfo
from palpate.metrics.dice import Dice

TASK = TaskInfo("segmentation", ("background", "lesion"))


def test_is_the_mean_score_and_0_where_there_is_no_output(make_rows, value):
    score = np.array([0.9, 0.5, 0.7], dtype=np.float32)
    finite = np.array([True, True, False])
    rows = make_rows([0, 0, 0], [0, 0, 0], score=score, finite=finite)
    assert value(Dice().measure(rows, TASK), rows) == pytest.approx((0.9 + 0.5 + 0) / 3)


def test_speaks_of_masks_only():
    assert Dice().applies(task="prompted_segmentation", family="occlusions")
    assert not Dice().applies(task="classification", family="none")
