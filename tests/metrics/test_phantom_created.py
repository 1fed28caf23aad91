import numpy as np

from palpate.metrics.phantom_created import PhantomCreated


def test_counts_lesions_made_up_where_there_is_none(mask_rows, disc, organs, value):
    lesion, empty = disc(8, 8, 4), disc(99, 99, 1)
    one = np.zeros_like(empty)
    one[3, 3] = True
    cases = [  # reference, clean answer, answer now
        (empty, empty, lesion),
        (empty, empty, one),  # a single pixel counts
        (empty, empty, empty),
        (empty, lesion, lesion),  # a false alarm already: left out
        (lesion, lesion, lesion),  # a real lesion: left out
    ]
    expected, clean, decided = (np.array([[c[k]] for c in cases]) for k in range(3))
    rows = mask_rows(decided, expected, clean=clean)

    measured = PhantomCreated().measure(rows, organs)

    assert value(measured, rows) == 2 / 3
    assert np.isnan(measured.values).tolist() == [False] * 3 + [True] * 2
    assert PhantomCreated().note(rows) == "valid 3/5: empty in reference and clean answer"


def test_a_lost_output_never_looks_clean(mask_rows, disc, organs, value):
    empty = np.array([[disc(99, 99, 1)]] * 2)
    rows = mask_rows(empty, empty, finite=[True, False])

    assert value(PhantomCreated().measure(rows, organs), rows) == 0.5


def test_no_lesion_free_sample_has_no_value(mask_rows, disc, organs, value):
    lesion = np.array([[disc(8, 8, 4)]])
    rows = mask_rows(lesion, lesion)

    assert value(PhantomCreated().measure(rows, organs), rows) is None


def test_a_clean_answer_that_was_lost_was_not_empty(mask_rows, disc, organs, value):
    lesion, empty = disc(8, 8, 4), disc(99, 99, 1)
    rows = mask_rows(np.array([[lesion], [empty]]), np.array([[empty]] * 2))
    for name in ("decided", "found", "overlap"):
        rows[f"clean_region_{name}"] = np.zeros((2, 1))
    rows["clean_score"] = np.array([0.0, 1.0])  # the first was not finite when clean

    assert value(PhantomCreated().measure(rows, organs), rows) == 0.0
    assert PhantomCreated().note(rows).startswith("valid 1/2")
