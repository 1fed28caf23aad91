import numpy as np
import pytest

from palpate.errors import ContractError
from palpate.statistics.estimate import Design, Estimate, codes, rng, undefined


def test_an_interval_that_excludes_its_value_is_refused():
    with pytest.raises(ContractError, match="expected an interval that holds its value"):
        Estimate(0.5, 0.6, 0.7, 0.95, 10, 10, "x")


def test_undefined_has_no_number():
    found = undefined(0.95, why="no row counts")
    assert (found.value, found.low, found.high, found.method) == (None, None, None, "no row counts")


def test_taking_rows_renumbers():
    design = Design(codes(np.array(["b", "a", "c"])), np.zeros(3, dtype=np.intp))
    assert design.take(np.array([0, 2])).cases.tolist() == [0, 1]


def test_random_numbers_hang_on_names():
    assert rng("a", 1).random() == rng("a", 1).random()
    assert rng("a", 1).random() != rng("a", 2).random()
