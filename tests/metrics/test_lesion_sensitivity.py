import numpy as np
import pytest

from palpate.metrics.lesion_sensitivity import LesionSensitivity


def test_counts_lesions_over_samples_with_any(mask_rows, disc, organs, value):
    first, second, empty = disc(6, 6, 3), disc(24, 24, 3), disc(99, 99, 1)
    pairs = [(first, first | second), (empty, second), (first, empty), (empty, empty)]
    decided, expected = (np.array([[p[k]] for p in pairs]) for k in (0, 1))
    rows = mask_rows(decided, expected)

    measured = LesionSensitivity().measure(rows, organs)

    assert value(measured, rows) == pytest.approx(1 / 3)
    assert np.isnan(measured.numerator).tolist() == [False, False, True, True]


def test_a_lost_output_misses(mask_rows, disc, organs, value):
    lesion = np.array([[disc(6, 6, 3)]] * 2)
    rows = mask_rows(lesion, lesion, finite=[True, False])

    assert value(LesionSensitivity().measure(rows, organs), rows) == 0.5
