import pytest

from palpate.statistics.bend import bends

DOSES = (0.1, 0.3, 0.5, 0.7, 0.9)


def record(maker, rights):
    """One model; `rights` says how many of 40 images are right at each dose."""
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    for dose, right in zip(DOSES, rights, strict=True):
        rows = [maker.outcome(i, right=i < right, trial=t) for t in range(2) for i in range(40)]
        setting = {"coverage": dose, "trials": 2}
        maker.cell("mamba", "occlusions", "patch_drop", setting=setting, trials=2, outcomes=rows)
    return maker.write()


def test_slopes_by_hand(maker):
    (row,) = bends(record(maker, (40, 38, 36, 20, 0)), "patch_drop", "coverage")
    assert (row.middle, row.last) == (0.5, 0.9)
    assert row.early.value == pytest.approx(0.1 / 0.5)
    assert row.late.value == pytest.approx(0.9 / 0.4)
    assert row.excess.value == pytest.approx(0.9 / 0.4 - 0.2)
    assert row.excess.low > 0
    assert row.excess.units <= 40  # cases, however many trials


def test_a_straight_line_has_no_bend(maker):
    (row,) = bends(record(maker, (36, 28, 20, 12, 4)), "patch_drop", "coverage")
    assert row.excess.value == pytest.approx(0)
    assert row.excess.low < 0 < row.excess.high


def test_two_doses_say_nothing_of_a_bend(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    for dose in (0.1, 0.9):
        rows = [maker.outcome(i, right=True) for i in range(40)]
        maker.cell("mamba", "occlusions", "patch_drop", setting={"coverage": dose}, outcomes=rows)
    assert not bends(maker.write(), "patch_drop", "coverage")
