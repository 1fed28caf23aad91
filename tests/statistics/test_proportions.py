import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from palpate.errors import ContractError
from palpate.sampling import wilson
from palpate.statistics.estimate import Design
from palpate.statistics.proportions import effective_units, share, weighted_mean


def independent(n):
    return Design(np.arange(n), np.zeros(n, dtype=np.intp))


def nested(cases, each):
    return Design(np.repeat(np.arange(cases), each), np.zeros(cases * each, dtype=np.intp))


def crossed(trials, cases):
    return Design(
        np.tile(np.arange(cases), trials), np.repeat(np.arange(trials), cases), crossed=True
    )


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (1, 1000), (155, 156)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(hits, n, confidence):
    expected = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
    assert wilson(hits / n, n, confidence=confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("value", "n"), [(-0.1, 5), (1.1, 5), (0.5, 0), (float("nan"), 5)])
def test_wilson_refuses_what_is_no_share(value, n):
    with pytest.raises(ContractError, match="expected a share"):
        wilson(value, n, confidence=0.95)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.integers(1, 5),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_value_inside_and_intervals_nested_in_confidence(values, each, is_crossed):
    cases = np.arange(len(values)) // each
    trials = np.arange(len(values)) % each
    design = Design(cases, np.unique(trials, return_inverse=True)[1], is_crossed)
    wide = share(np.array(values), design, confidence=0.99)
    narrow = share(np.array(values), design, confidence=0.9)
    assert 0 <= wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high <= 1
    assert 1 - 1e-9 <= narrow.units <= len(values) + 1e-9


def test_rows_without_value_do_not_count():
    found = share(np.array([1.0, np.nan, 0.0, np.nan]), independent(4), confidence=0.95)
    assert (found.value, found.n, found.units) == (0.5, 2, 2)
    assert share(np.full(3, np.nan), independent(3), confidence=0.95).value is None


def test_ten_copies_of_a_patient_are_one_patient():
    answers = np.random.default_rng(0).random(50) < 0.7
    units = effective_units(np.repeat(answers, 10).astype(float), nested(50, 10))
    assert units == pytest.approx(50, rel=0.01)


def test_unrelated_images_of_a_patient_count_almost_fully():
    answers = (np.random.default_rng(1).random(3000) < 0.6).astype(float)
    assert effective_units(answers, nested(300, 10)) > 2000


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_at_0_and_1_the_units_are_the_cases_or_the_faults(level):
    assert effective_units(np.full(500, level), nested(50, 10)) == pytest.approx(50)
    assert effective_units(np.full(1200, level), crossed(300, 4)) == pytest.approx(4)
    assert effective_units(np.full(1200, level), crossed(4, 300)) == pytest.approx(4)


def test_faults_never_count_for_more_than_the_trials():
    answers = (np.random.default_rng(2).random(20 * 156) < 0.5).astype(float)
    assert effective_units(answers, crossed(20, 156)) <= 20


def _covers(draw, truth, *, runs):
    hits = 0
    for run in range(runs):
        values, design = draw(np.random.default_rng(run))
        found = share(values, design, confidence=0.95)
        hits += found.low <= truth <= found.high
    return hits / runs


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.85])
def test_coverage_of_independent_cases(truth):
    def draw(rng):
        return (rng.random(150) < truth).astype(float), independent(150)

    assert 0.93 <= _covers(draw, truth, runs=1500) <= 0.97


def test_coverage_of_clustered_cases():
    def draw(rng):  # beta-binomial: intraclass correlation 1 / (1 + 2.4 + 0.6) = 0.25
        level = rng.beta(2.4, 0.6, 60)
        return (rng.random((60, 6)) < level[:, None]).ravel().astype(float), nested(60, 6)

    assert 0.93 <= _covers(draw, 0.8, runs=1500) <= 0.985


def test_coverage_of_rare_faults_that_hit_many_cases():
    def draw(rng):  # one fault in 25 matters, and then spoils most cases; cases differ in frailty
        matters = rng.random(200) < 0.04
        frail = rng.beta(3, 1, 80)
        answers = matters[:, None] & (rng.random((200, 80)) < frail[None, :])
        return answers.ravel().astype(float), crossed(200, 80)

    assert _covers(draw, 0.04 * 0.75, runs=500) >= 0.93


def test_macro_average_equals_the_mean_and_is_narrower_than_its_parts():
    rng = np.random.default_rng(3)
    parts = [
        share((rng.random(50) < p).astype(float), independent(50), confidence=0.95)
        for p in (0.7, 0.9)
    ]
    both = weighted_mean(parts)
    assert both.value == pytest.approx(np.mean([p.value for p in parts]))
    assert both.high - both.low < max(p.high - p.low for p in parts)
    linked = weighted_mean(parts, linked=True)
    assert linked.low < both.low < both.high < linked.high


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 1)), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_rounding_pushes_a_weighted_mean_out_of_its_interval(pairs):
    parts = [share(np.full(3, v), independent(3), confidence=0.95) for v, _ in pairs]
    found = weighted_mean(parts, weights=[w for _, w in pairs])
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_macro_coverage():
    def once(rng):
        parts = [
            share((rng.random(n) < p).astype(float), independent(n), confidence=0.95)
            for n, p in ((40, 0.7), (110, 0.95))
        ]
        found = weighted_mean(parts)
        return found.low <= 0.825 <= found.high

    assert 0.93 <= np.mean([once(np.random.default_rng(i)) for i in range(1500)]) <= 0.975
