import numpy as np
import pytest

from palpate.metrics.robust_accuracy import RobustAccuracy, could_not_attack


def test_is_over_all_samples_and_needs_right_before_and_after(make_rows, binary, value):
    rows = make_rows([0, 0, 1, 1], [0, 1, 1, 1], clean=[0, 0, 0, 1])
    assert value(RobustAccuracy().measure(rows, binary), rows) == pytest.approx(2 / 4)


def test_a_sample_that_could_not_be_attacked_is_never_robust(make_rows, binary, value):
    status = ["ok", "no gradient", "no move", "ok"]
    rows = make_rows([0, 0, 1, 1], [0, 0, 1, 0], status=status)
    assert value(RobustAccuracy().measure(rows, binary), rows) == pytest.approx(1 / 4)


def test_an_attack_that_moved_nothing_has_no_value(make_rows, binary, value):
    rows = make_rows([0, 0, 1], [0, 0, 1], status=["no gradient"] * 3)
    assert could_not_attack(rows)
    assert value(RobustAccuracy().measure(rows, binary), rows) is None


def test_a_model_that_is_always_wrong_is_plainly_0(make_rows, binary, value):
    rows = make_rows([0, 1], [1, 0], clean=[1, 0])
    assert not could_not_attack(rows)
    assert value(RobustAccuracy().measure(rows, binary), rows) == 0.0


def test_the_worst_of_several_trials_counts(make_rows, binary, value):
    rows = make_rows([0, 1, 0, 1], [0, 1, 1, 1])
    rows |= {"sample": np.array(["a", "b", "a", "b"]), "trial": np.array([0, 0, 1, 1])}
    assert value(RobustAccuracy().measure(rows, binary), rows) == pytest.approx(1 / 2)


def test_another_attack_that_moved_the_sample_makes_it_count(make_rows, binary, value):
    rows = make_rows([0, 0], [0, 0], status=["no gradient", "ok"]) | {
        "sample": np.array(["a", "a"])
    }
    assert value(RobustAccuracy().measure(rows, binary), rows) == 1.0


def test_multi_label_counts_labels(make_rows, labels, value):
    rows = make_rows([[1, 0, 1]], [[1, 0, 0]], clean=[[1, 1, 1]])
    assert value(RobustAccuracy().measure(rows, labels), rows) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("status", "unable"),
    [
        (["no gradient"] * 2, True),
        (["no gradient", "ok"], False),  # acted on one that still stands
        (["ok", "no gradient"], False),
    ],
)
def test_masks_stand_by_their_score(mask_rows, disc, status, unable):
    lesion = np.array([[disc(8, 8, 4)]] * 2)
    rows = mask_rows(lesion, lesion) | {"status": np.array(status)}
    assert could_not_attack(rows) == unable
    fell = mask_rows(np.array([[disc(8, 8, 4)], [disc(20, 20, 4)]]), lesion, clean=lesion)
    assert not could_not_attack(fell | {"status": np.array(["no gradient", "ok"])})
