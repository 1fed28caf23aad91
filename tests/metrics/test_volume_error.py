import numpy as np
import pytest

from palpate.metrics.volume_error import VolumeError


def test_is_one_less_the_volumetric_similarity(mask_rows, random_masks, organs, value):
    decided, expected = random_masks(4), random_masks(4, seed=1)
    rows = mask_rows(decided, expected)
    a, b = decided.sum(axis=(2, 3)), expected.sum(axis=(2, 3))

    assert value(VolumeError().measure(rows, organs), rows) == pytest.approx(
        (abs(a - b) / (a + b)).mean()
    )


def test_place_does_not_matter_and_an_emptied_mask_is_all_wrong(mask_rows, disc):
    here, there, empty = disc(8, 8, 4), disc(22, 22, 4), disc(99, 99, 1)
    pairs = [(there, here), (empty, here), (here, empty), (empty, empty), (empty, empty)]
    decided, expected = (np.array([[p[k]] for p in pairs]) for k in (0, 1))
    rows = mask_rows(decided, expected, finite=[True] * 4 + [False])

    assert VolumeError().values(rows)[:, 0].tolist() == [0, 1, 1, 0, 1]
    assert VolumeError().better == "lower"
