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


def test_says_how_many_ones_are_of_two_empty_masks(mask_rows, disc):
    lesion, empty = disc(8, 8, 4), disc(99, 99, 1)
    expected = np.array([[empty], [empty], [lesion], [empty]])
    decided = np.array([[empty], [lesion], [lesion], [empty]])
    rows = mask_rows(decided, expected, finite=[True, True, True, False])
    assert Dice().note(rows) == "both masks empty in 1 of 4, which counts as 1"
    assert Dice().note(mask_rows(expected[2:3], expected[2:3])) == ""
