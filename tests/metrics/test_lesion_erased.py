import numpy as np
import pytest

from palpate.metrics._masks import by_class
from palpate.metrics.lesion_erased import LesionErased


@pytest.fixture
def shapes(disc):
    return disc(8, 8, 4), disc(24, 24, 4), disc(99, 99, 1)


def test_counts_those_that_were_found_and_are_not_any_more(mask_rows, shapes, organs, value):
    lesion, elsewhere, empty = shapes
    sliver = lesion & (np.arange(32) < 7)[:, None]  # more than a tenth: still found
    cases = [  # reference, clean answer, answer now
        (lesion, lesion, empty),  # erased
        (lesion, lesion, elsewhere),  # erased: what is marked lies elsewhere
        (lesion, lesion, sliver),  # still found
        (lesion, lesion, lesion),
        (lesion, empty, empty),  # never found: left out
        (empty, lesion, empty),  # nothing to find: left out
    ]
    expected, clean, decided = (np.array([[c[k]] for c in cases]) for k in range(3))
    rows = mask_rows(decided, expected, clean=clean)

    measured = LesionErased().measure(rows, organs)

    assert value(measured, rows) == 0.5
    assert np.isnan(measured.values).tolist() == [False] * 4 + [True] * 2
    assert LesionErased().note(rows) == "valid 4/6: lesion found on the clean image"


def test_one_of_two_lesions_left_is_not_erased(mask_rows, shapes, organs, value):
    lesion, other, _ = shapes
    rows = mask_rows([[lesion]], [[lesion | other]], clean=[[lesion | other]])

    assert value(LesionErased().measure(rows, organs), rows) == 0.0


def test_a_lost_output_has_erased(mask_rows, shapes, organs, value):
    lesion = shapes[0]
    rows = mask_rows([[lesion]] * 2, [[lesion]] * 2, finite=[True, False])

    assert value(LesionErased().measure(rows, organs), rows) == 0.5


def test_classes_count_where_they_were_found(mask_rows, shapes, organs, value):
    lesion, other, empty = shapes
    rows = mask_rows([[empty, other]], [[lesion, other]], clean=[[lesion, other]])

    assert value(LesionErased().measure(rows, organs), rows) == 0.5
    found = {n: value(LesionErased().measure(p, organs), p) for n, p in by_class(rows, organs)}
    assert found == {"bowel": 1.0, "stomach": 0.0}
