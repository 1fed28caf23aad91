import numpy as np
import pytest

from palpate.statistics._order import wrong_order

WEAK = np.zeros(12)
STRONG = np.array([1.0] * 8 + [0.0] * 4)


@pytest.mark.parametrize(
    ("cases", "among", "status", "said"),
    [
        (None, 1, "fail", "8 samples better off, 0 worse off (p = 0.0039)"),
        (None, 20, "warn", "(p = 0.078, corrected for 20 pairs)"),
        # the same eight samples are those of two patients
        (np.arange(12) // 4, 1, "warn", "2 cases better off, 0 worse off (p = 0.25)"),
    ],
)
def test_counts_cases_and_corrects_for_the_pairs_looked_at(cases, among, status, said):
    found = wrong_order(WEAK, STRONG, under="one step", cases=cases, among=among)

    assert found is not None
    assert found[0] == status
    assert said in found[1]


def test_the_right_order_is_no_finding():
    assert wrong_order(STRONG, WEAK, under="one step") is None
