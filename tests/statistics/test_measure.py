import numpy as np
import pytest

from palpate.metrics.base import Macro, Ratio, Share
from palpate.statistics.estimate import Design
from palpate.statistics.measure import estimate, reweighted, stratified

HOW = {"confidence": 0.95, "resamples": 500, "name": "x"}


def test_layers_dealt_evenly_are_weighted_by_their_memory():
    trials, cases = 40, 20
    design = Design(
        np.tile(np.arange(cases), trials), np.repeat(np.arange(trials), cases), crossed=True
    )
    strata = design.trials % 2
    values = (strata == 1).astype(float)  # every fault of the small layer is an SDC
    found = stratified(
        Share(values), design, strata=strata, shares=np.array([0.99, 0.01]), confidence=0.95
    )
    assert found.value == pytest.approx(0.01)
    assert values.mean() == 0.5


def test_ends_are_plain_numbers_which_json_can_write():
    trials, cases = 100, 10
    design = Design(
        np.tile(np.arange(cases), trials), np.repeat(np.arange(trials), cases), crossed=True
    )
    values = ((design.trials == 3) & (design.cases % 2 == 0)).astype(float)
    found = stratified(
        Share(values),
        design,
        strata=design.trials % 2,
        shares=np.array([0.1, 0.9]),
        confidence=0.95,
    )
    assert type(found.low) is type(found.high) is float


def test_memory_that_was_never_drawn_widens_the_interval():
    design = Design(np.zeros(10, dtype=np.intp), np.arange(10), crossed=True)
    how = {"strata": np.zeros(10, dtype=np.intp), "confidence": 0.95}
    whole = stratified(Share(np.zeros(10)), design, shares=np.array([1.0]), **how)
    half = stratified(Share(np.zeros(10)), design, shares=np.array([0.5]), **how)
    assert half.value == 0.0
    assert half.high == pytest.approx(whole.high * 0.5 + 0.5)
    assert "50.0% of the population never drawn" in half.method


def test_reweighting_gives_the_population_ratio():
    strata, shares = np.array([0, 0, 1, 1]), np.array([0.9, 0.1])
    measured = reweighted(Ratio(np.array([0.0, 0, 1, 1]), np.ones(4)), strata, shares)
    assert measured.numerator.sum() / measured.denominator.sum() == pytest.approx(0.1)


def test_classes_that_share_patients_are_not_taken_as_independent():
    values = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    nan = np.nan
    halves = [np.where(np.arange(8) % 2 == k, values, nan) for k in (0, 1)]
    macro = Macro(tuple(Share(h) for h in halves))
    trials = np.zeros(8, dtype=np.intp)
    apart = estimate(macro, Design(np.arange(8), trials), **HOW)
    shared = estimate(macro, Design(np.arange(8) // 2, trials), **HOW)
    assert shared.low < apart.low
    assert apart.units == pytest.approx(8)
    assert shared.units == pytest.approx(4)  # each patient is in both halves, and is one


def test_coverage_over_strata_of_unequal_size_and_rate():
    sizes, rates, trials, cases = np.array([0.5, 0.3, 0.15, 0.05]), [0.01, 0.03, 0.05, 0.3], 120, 30
    dealt = np.arange(trials) % 4
    design = Design(
        np.tile(np.arange(cases), trials), np.repeat(np.arange(trials), cases), crossed=True
    )
    truth, hits = float(sizes @ rates) * 0.8, 0
    for run in range(300):
        draw = np.random.default_rng(run)
        matters = draw.random(trials) < np.array(rates)[dealt]
        frail = draw.beta(4, 1, cases)
        values = matters[:, None] & (draw.random((trials, cases)) < frail)
        strata = np.repeat(dealt, cases)
        found = stratified(
            Share(values.ravel() * 1.0), design, strata=strata, shares=sizes, confidence=0.95
        )
        hits += found.low <= truth <= found.high
    assert hits / 300 >= 0.93
