"""Against monai on random masks, except for the written policy on empty ones."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from palpate.regions import DETECTED, TOLERANCE, compare, diagonal, lost


def smooth(count, seed=0, shape=(40, 33)):
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((count, *shape)), (0, *([3] * len(shape))))
    return fields > 0.05


def speckled(count, seed=0, shape=(24, 24)):
    return np.random.default_rng(seed).random((count, *shape)) < 0.1


PAIRS = [
    *zip(smooth(6), smooth(6, seed=1), strict=True),
    *zip(speckled(3), speckled(3, seed=1), strict=True),
    *zip(smooth(2, shape=(9, 10, 11)), smooth(2, seed=1, shape=(9, 10, 11)), strict=True),
]


def tensors(decided, expected):
    return (torch.from_numpy(m)[None, None].float() for m in (decided, expected))


@pytest.mark.parametrize(("decided", "expected"), PAIRS)
def test_distances_are_those_of_monai(decided, expected):
    metrics = pytest.importorskip("monai.metrics")
    found = compare(decided, expected)
    given = dict(zip(("y_pred", "y"), tensors(decided, expected), strict=True))

    hd95 = metrics.compute_hausdorff_distance(**given, include_background=True, percentile=95)
    surface = metrics.compute_surface_dice(
        **given, class_thresholds=[TOLERANCE], include_background=True
    )

    assert found.hd95 == pytest.approx(hd95.item(), rel=1e-5)
    assert found.surface == pytest.approx(surface.item(), abs=1e-6)
    assert found == compare(decided, expected)
    back = compare(expected, decided)
    assert (found.hd95, found.surface) == pytest.approx((back.hd95, back.surface))


@pytest.mark.parametrize(("decided", "expected"), PAIRS[:6])
def test_lesions_are_the_connected_parts(decided, expected):
    measure = pytest.importorskip("skimage.measure", reason="counts by another library")
    labels = measure.label(expected, connectivity=expected.ndim)
    found = sum(decided[labels == k].mean() >= DETECTED for k in range(1, int(labels.max()) + 1))

    assert (compare(decided, expected).lesions, compare(decided, expected).found) == (
        labels.max(),
        found,
    )


def test_a_lesion_is_found_when_a_tenth_of_it_is_covered():
    expected = np.zeros((12, 12), bool)
    expected[1, 1:11] = True  # ten pixels
    expected[3, 3] = expected[4, 4] = True  # touch by a corner: one lesion
    decided = np.zeros_like(expected)
    assert compare(decided, expected).found == 0
    decided[1, 1] = True
    region = compare(decided, expected)
    assert (region.lesions, region.found) == (2, 1)
    expected[1, 11] = True  # eleven pixels: one is less than a tenth
    assert compare(decided, expected).found == 0


def test_empty_masks_follow_the_policy_where_monai_praises_them():
    expected = smooth(1)[0]
    empty = np.zeros_like(expected)
    pairs = ((empty, expected), (expected, empty), (empty, empty))
    erased, phantom, both = (compare(*pair) for pair in pairs)

    assert erased.hd95 == phantom.hd95 == diagonal(expected) == math.hypot(39, 32)
    assert erased.surface == phantom.surface == 0
    assert (both.surface, both.lesions) == (1, 0)
    assert math.isnan(both.hd95)
    assert erased.found == 0
    assert lost(expected) == erased
    assert lost(empty).hd95 == diagonal(expected)
    assert lost(empty).surface == 0


def test_monai_reads_zero_where_every_mask_was_emptied():
    """The reason for the policy: Project-MONAI/MONAI#9095."""
    metrics = pytest.importorskip("monai.metrics")
    metric = metrics.HausdorffDistanceMetric(include_background=True, percentile=95)
    expected = torch.from_numpy(smooth(2))[:, None].float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric(y_pred=torch.zeros_like(expected), y=expected)

    assert metric.aggregate().item() == 0
    assert compare(np.zeros((40, 33), bool), smooth(1)[0]).hd95 > 40


def test_no_distance_exceeds_the_one_of_an_empty_mask():
    corner, other = np.zeros((2, 8, 9), bool)
    corner[0, 0] = other[-1, -1] = True

    assert compare(corner, other).hd95 == pytest.approx(diagonal(corner))
