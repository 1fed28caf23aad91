import numpy as np
import pytest
import torch

from palpate.metrics.iou import Iou


def test_is_that_of_monai(mask_rows, random_masks, organs, value):
    metrics = pytest.importorskip("monai.metrics")
    decided, expected = random_masks(5), random_masks(5, seed=1)
    rows = mask_rows(decided, expected)
    peer = metrics.compute_iou(
        torch.from_numpy(decided).float(), torch.from_numpy(expected).float()
    )

    assert Iou().values(rows) == pytest.approx(peer.numpy(), abs=1e-6)
    assert value(Iou().measure(rows, organs), rows) == pytest.approx(peer.mean().item())


def test_empty_and_lost_masks(mask_rows, disc, organs, value):
    full, empty = disc(16, 16, 5), disc(99, 99, 1)
    pairs = [(empty, empty), (empty, full), (full, empty), (full, full), (full, full)]
    decided, expected = (np.array([[p[k]] for p in pairs]) for k in (0, 1))
    rows = mask_rows(decided, expected, finite=[True] * 4 + [False])

    assert Iou().values(rows)[:, 0].tolist() == [1, 0, 0, 1, 0]
