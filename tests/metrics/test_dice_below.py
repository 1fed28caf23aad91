import numpy as np
import pytest

from palpate.errors import ConfigError
from palpate.metrics._masks import by_class
from palpate.metrics.dice_below import DiceBelow


def test_counts_samples_below_the_bar(mask_rows, disc, organs, value):
    whole, empty = disc(16, 16, 8), disc(99, 99, 1)
    half = whole & (np.arange(32) < 16)[:, None]  # Dice about 2/3
    expected = np.array([[whole]] * 4 + [[empty]] * 2)
    decided = np.array([[m] for m in (whole, half, empty, whole, empty, whole)])
    rows = mask_rows(decided, expected, finite=[True, True, True, False, True, True])

    def of(bar):
        return value(DiceBelow(bar=bar).measure(rows, organs), rows)

    # lost: Dice 0; both empty: 1; one empty: 0
    assert of(0.5) == pytest.approx(3 / 6)
    assert of(0.7) == pytest.approx(4 / 6)
    assert of(1.0) == pytest.approx(4 / 6)


def test_says_how_many_were_below_already(mask_rows, disc, organs):
    lesion, empty = disc(16, 16, 8), disc(99, 99, 1)
    expected = np.array([[lesion]] * 3)
    decided = np.array([[empty]] * 3)
    clean = np.array([[lesion], [lesion], [empty]])
    rows = mask_rows(decided, expected, clean=clean)

    assert DiceBelow().note(rows) == "1 of 3 below it when clean"
    assert DiceBelow().note(mask_rows(decided, expected)) == ""  # the clean cell itself


def test_one_class_of_several_is_judged_by_its_own_dice(mask_rows, disc, organs, value):
    lesion, empty = disc(16, 16, 8), disc(99, 99, 1)
    rows = mask_rows(
        [[lesion, empty]], [[lesion, lesion]], clean=np.array([[[*lesion], [*lesion]]])
    )

    parts = dict(by_class(rows, organs))
    found = {n: value(DiceBelow().measure(p, organs), p) for n, p in parts.items()}
    assert found == {"bowel": 0.0, "stomach": 1.0}
    assert value(DiceBelow().measure(rows, organs), rows) == 0.0  # mean of 1 and 0 is the bar
    assert DiceBelow().note(parts["stomach"]) == "0 of 1 below it when clean"


def test_a_bar_that_is_no_dice_is_refused():
    with pytest.raises(ConfigError, match=r"bar: expected a Dice above 0, at most 1, got 1\.5"):
        DiceBelow(bar=1.5)
