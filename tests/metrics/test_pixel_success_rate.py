import numpy as np
import pytest

from palpate.metrics._masks import has_pixels
from palpate.metrics.pixel_success_rate import PixelSuccessRate


def test_is_the_share_of_pixels_that_are_wrong_or_changed(mask_rows, random_masks, organs, value):
    decided, expected, clean = (random_masks(5, classes=1, seed=s) for s in range(3))
    rows = mask_rows(decided, expected, clean=clean)

    wrong = value(PixelSuccessRate().measure(rows, organs), rows)
    changed = value(PixelSuccessRate(counting="changed").measure(rows, organs), rows)

    assert wrong == pytest.approx((decided != expected).mean())
    assert changed == pytest.approx((decided != clean).mean())


def test_every_pixel_of_a_lost_output_is_wrong(mask_rows, random_masks, organs, value):
    masks = random_masks(2, classes=1)
    rows = mask_rows(masks, masks, finite=[True, False])

    assert value(PixelSuccessRate().measure(rows, organs), rows) == 0.5


def test_a_run_that_counted_no_pixels_has_no_value(mask_rows, random_masks, organs, value):
    masks = random_masks(2, classes=1)
    rows = {**mask_rows(masks, masks), "pixels": np.zeros(2)}

    assert not has_pixels(rows)
    assert value(PixelSuccessRate().measure(rows, organs), rows) is None
