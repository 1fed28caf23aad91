import numpy as np
import pytest
import torch

from palpate.metrics._masks import SMALL, by_class, by_size, dice, has_regions
from palpate.metrics.base import TaskInfo
from palpate.metrics.dice import Dice
from palpate.metrics.iou import Iou


def test_dice_is_that_of_monai(mask_rows, random_masks):
    metrics = pytest.importorskip("monai.metrics")
    decided, expected = random_masks(5), random_masks(5, seed=1)
    peer = metrics.compute_dice(*(torch.from_numpy(m).float() for m in (decided, expected)))

    assert dice(mask_rows(decided, expected)) == pytest.approx(peer.numpy(), abs=1e-6)


def test_classes_apart_average_to_the_whole(mask_rows, random_masks, organs, value):
    decided, expected = random_masks(5), random_masks(5, seed=1)
    rows = mask_rows(decided, expected)
    rows["score"] = dice(rows).mean(axis=1)
    background = TaskInfo("segmentation", ("background", "bowel", "stomach"))

    for metric in (Dice(), Iou()):
        parts = {name: value(metric.measure(p, organs), p) for name, p in by_class(rows, organs)}
        assert parts.keys() == {"bowel", "stomach"}
        assert np.mean(list(parts.values())) == pytest.approx(
            value(metric.measure(rows, organs), rows)
        )
    assert [name for name, _ in by_class(rows, background)] == ["bowel", "stomach"]


def test_one_class_is_not_listed_twice(mask_rows, disc, organs):
    rows = mask_rows(np.array([[disc(6, 6, 3)]]), np.array([[disc(6, 6, 3)]]))

    assert not list(by_class(rows, TaskInfo("segmentation", ("background", "lesion"))))


def test_a_record_without_regions_has_no_value(make_rows, organs):
    rows = make_rows([0, 0], [0, 0], region_overlap=np.empty((2, 0)))
    for name in ("decided", "expected"):
        rows[f"region_{name}"] = np.empty((2, 0))

    assert not has_regions(rows)
    assert np.isnan(Iou().measure(rows, organs).numerator).all()
    assert not list(by_class(rows, organs))


def test_rows_are_parted_by_the_share_of_the_image_that_the_reference_covers(mask_rows, disc):
    small, large, empty = disc(16, 16, 3), disc(16, 16, 9), disc(99, 99, 1)
    assert small.mean() <= SMALL < large.mean()
    masks = np.array([[small], [large], [empty], [large]])
    rows = mask_rows(masks, masks)

    parts = {name: part["sample"].tolist() for name, part in by_size(rows)}

    assert parts == {"small lesions": ["s0"], "large lesions": ["s1", "s3"]}
    assert not list(by_size({**rows, "pixels": np.zeros(4)}))  # of an older version
