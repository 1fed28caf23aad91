import numpy as np
import pytest
import torch

from palpate.metrics.surface_distance import SurfaceDistance
from palpate.regions import TOLERANCE


def test_is_that_of_monai(mask_rows, random_masks, organs, value):
    metrics = pytest.importorskip("monai.metrics")
    decided, expected = random_masks(5), random_masks(5, seed=1)
    rows = mask_rows(decided, expected)
    peer = metrics.compute_surface_dice(
        *(torch.from_numpy(m).float() for m in (decided, expected)),
        class_thresholds=[TOLERANCE] * 2,
        include_background=True,
    )

    assert SurfaceDistance().values(rows) == pytest.approx(peer.numpy(), abs=1e-6)
    assert value(SurfaceDistance().measure(rows, organs), rows) == pytest.approx(peer.mean().item())


def test_an_emptied_mask_scores_nothing(mask_rows, disc):
    full, empty = disc(16, 16, 5), disc(99, 99, 1)
    decided, expected = np.array([[empty], [empty], [full]]), np.array([[full], [empty], [full]])
    rows = mask_rows(decided, expected, finite=[True, True, False])

    assert SurfaceDistance().values(rows)[:, 0].tolist() == [0, 1, 0]
