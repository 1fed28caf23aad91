import numpy as np
import pytest

from palpate.metrics.base import TaskInfo
from palpate.metrics.consistency import Consistency, agreement

LESION = TaskInfo("prompted_segmentation", ("target",))


def test_is_the_dice_of_both_answers(mask_rows, random_masks, value):
    decided, expected, clean = (random_masks(6, classes=1, seed=s) for s in range(3))
    rows = mask_rows(decided, expected, clean=clean)

    found = value(Consistency().measure(rows, LESION), rows)

    overlap, total = (
        (decided & clean).sum((1, 2, 3)),
        (decided.sum((1, 2, 3)) + clean.sum((1, 2, 3))),
    )
    assert found == pytest.approx((2 * overlap / total).mean())
    assert found != pytest.approx(rows["score"].mean(), abs=0.01)


def test_planes_are_taken_together(mask_rows, random_masks, organs):
    decided, clean = (random_masks(4, classes=2, seed=s) for s in range(2))
    rows = mask_rows(decided, random_masks(4, classes=2, seed=5), clean=clean)

    overlap = (decided & clean).sum((1, 2, 3))
    total = decided.sum((1, 2, 3)) + clean.sum((1, 2, 3))
    assert agreement(rows, organs) == pytest.approx(2 * overlap / total)


def test_empty_and_lost_masks(mask_rows, disc, value):
    lesion, empty = disc(8, 8, 4), disc(99, 99, 1)
    cases = [(empty, empty), (lesion, empty), (empty, lesion), (lesion, lesion), (lesion, lesion)]
    decided, clean = (np.array([[c[k]] for c in cases]) for k in range(2))
    expected = np.array([[lesion]] * len(cases))
    rows = mask_rows(decided, expected, clean=clean, finite=[True] * 4 + [False])

    assert agreement(rows, LESION).tolist() == [1, 0, 0, 1, 0]
    assert value(Consistency().measure(rows, LESION), rows) == pytest.approx(0.4)


def test_what_the_counts_do_not_tell_has_no_value(mask_rows, random_masks, value):
    masks = random_masks(3, classes=2)
    rows = mask_rows(masks, masks)
    exclusive = TaskInfo("segmentation", ("background", "bowel", "stomach"))
    assert value(Consistency().measure(rows, exclusive), rows) is None

    moved = {**rows, "clean_region_expected": rows["region_expected"] + [[0, 0], [1, 0], [0, 0]]}
    planes = TaskInfo("segmentation", ("bowel", "stomach"))
    assert np.isnan(agreement(moved, planes)).tolist() == [False, True, False]
    uncounted = {**rows, "pixels": np.zeros(3)}
    assert value(Consistency().measure(uncounted, planes), rows) is None
