import math

import numpy as np
import pytest
import torch

from palpate.metrics.hd95 import Hd95

DIAGONAL = math.hypot(31, 31)


def test_is_that_of_monai(mask_rows, random_masks, organs, value):
    metrics = pytest.importorskip("monai.metrics")
    decided, expected = random_masks(5), random_masks(5, seed=1)
    rows = mask_rows(decided, expected)
    peer = metrics.compute_hausdorff_distance(
        *(torch.from_numpy(m).float() for m in (decided, expected)),
        include_background=True,
        percentile=95,
    )

    assert Hd95().values(rows) == pytest.approx(peer.numpy(), rel=1e-5)
    assert value(Hd95().measure(rows, organs), rows) == pytest.approx(peer.mean().item(), rel=1e-5)
    assert Hd95().note(rows) == "valid 10/10"


def test_emptying_masks_makes_it_worse_each_time(mask_rows, disc, organs, value):
    """monai 1.6.1 reads 4, 4 and 0 for none, two and four of four masks emptied."""
    full, off, empty = disc(16, 16, 5), disc(16, 20, 5), disc(99, 99, 1)
    expected = np.array([[full]] * 4)
    found = []
    for emptied in (0, 2, 4):
        decided = np.array([[empty]] * emptied + [[off]] * (4 - emptied))
        rows = mask_rows(decided, expected)
        found.append(value(Hd95().measure(rows, organs), rows))

    assert found == pytest.approx([found[0], (found[0] + DIAGONAL) / 2, DIAGONAL])
    assert Hd95().note(rows) == (
        "valid 0/4, 4 with one mask empty or no output count as the image's diagonal"
    )


def test_both_empty_is_left_out_and_a_phantom_is_not(mask_rows, disc, organs, value):
    full, empty = disc(16, 16, 5), disc(99, 99, 1)
    rows = mask_rows(np.array([[full], [empty], [full]]), np.array([[full], [empty], [empty]]))

    assert value(Hd95().measure(rows, organs), rows) == pytest.approx(DIAGONAL / 2)
    assert Hd95().note(rows) == (
        "valid 1/3, 1 with one mask empty or no output count as the image's diagonal,"
        " 1 with both masks empty left out"
    )


def test_the_interval_is_in_pixels(mask_rows, disc, organs):
    from palpate.statistics.estimate import Design
    from palpate.statistics.measure import estimate

    full = disc(16, 16, 5)
    for shifts in ((4, 4, 4, 4, 4), (1, 2, 3, 4, 9)):
        decided = np.array([[disc(16, 16 + s, 5)] for s in shifts])
        rows = mask_rows(decided, np.array([[full]] * 5))
        found = estimate(
            Hd95().measure(rows, organs),
            Design(np.arange(5), np.zeros(5, dtype=np.intp)),
            confidence=0.95,
            resamples=500,
            name="test",
        )
        assert 0 < found.low < found.value <= found.high <= 9.1
