import numpy as np
import pytest
import scipy.stats

from palpate.metrics.auc import weighted_auc
from palpate.metrics.base import Functional, Ratio
from palpate.statistics.estimate import Design, rng
from palpate.statistics.resampling import functional, ratio

HOW = {"confidence": 0.95, "resamples": 4000}


def independent(n):
    return Design(np.arange(n), np.zeros(n, dtype=np.intp))


def mean_of(values):
    return Functional(lambda w: w @ values / w.sum(axis=1), len(values), len(values))


def test_bca_equals_scipy_on_independent_cases():
    values = np.random.default_rng(0).beta(5, 1, 80)
    found = functional(mean_of(values), independent(80), **HOW, rng=rng("a"))
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.003)


def test_ratio_of_means_equals_the_mean():
    values = np.random.default_rng(1).random(60)
    a = ratio(Ratio(values, np.ones(60)), independent(60), **HOW, rng=rng("a"))
    b = functional(mean_of(values), independent(60), **HOW, rng=rng("a"))
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=0.004)


def test_the_name_fixes_the_numbers():
    values = np.random.default_rng(1).random(60)
    a, b, c = (functional(mean_of(values), independent(60), **HOW, rng=rng(n)) for n in "aab")
    assert a == b
    assert a != c


def test_copies_of_a_patient_do_not_narrow_the_interval():
    values = np.random.default_rng(2).random(40)
    one = functional(mean_of(values), independent(40), **HOW, rng=rng("a"))
    copies = Design(np.repeat(np.arange(40), 7), np.zeros(280, dtype=np.intp))
    seven = functional(mean_of(np.repeat(values, 7)), copies, **HOW, rng=rng("a"))
    assert (seven.low, seven.high) == pytest.approx((one.low, one.high))


def test_a_perfect_score_is_not_certain():
    values = np.ones(30)
    found = functional(mean_of(values), independent(30), **HOW, rng=rng("a"))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.8865, abs=1e-3)  # Wilson, 30 of 30


def test_no_rounding_pushes_a_ratio_out_of_its_range():
    tenths = np.full(30, 0.1)
    for value in (tenths, np.ones(30)):
        found = ratio(Ratio(value, value), independent(30), **HOW, rng=rng("a"))
        assert found.low <= found.value <= found.high <= 1


def test_a_class_that_resamples_lose_gives_no_interval():
    positive, scores = np.arange(10) == 0, np.arange(10.0)
    measured = Functional(lambda w: weighted_auc(scores, positive, w), 10, 1)
    found = functional(measured, independent(10), **HOW, rng=rng("a"))
    assert found.value == 0.0
    assert found.low is None
    assert found.high is None
    assert "resamples lack a class" in found.method


def test_no_drop_seen_is_not_proof_of_none():
    found = ratio(
        Ratio(np.zeros(50), np.ones(50), low=-np.inf), independent(50), **HOW, rng=rng("a")
    )
    assert found.value == 0.0
    assert found.low < -0.05
    assert found.high > 0.05


def test_many_cases_are_handled_in_blocks():
    values = np.random.default_rng(3).random(3000)
    found = functional(
        mean_of(values), independent(3000), confidence=0.95, resamples=300, rng=rng("a")
    )
    half = 1.96 * values.std() / np.sqrt(3000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.2)


def test_faults_and_cases_both_count():
    generator = np.random.default_rng(4)
    by_fault = generator.random(15)[:, None] * np.ones((15, 200))
    design = Design(np.tile(np.arange(200), 15), np.repeat(np.arange(15), 200), crossed=True)
    found = ratio(Ratio(by_fault.ravel(), np.ones(3000)), design, **HOW, rng=rng("a"))
    assert found.high - found.low > 2 * 1.96 * by_fault[:, 0].std() / np.sqrt(15) * 0.8


def test_many_cases_agree_with_the_bootstrap():
    draw = np.random.default_rng(5)
    positive = np.arange(1500) < 300
    scores = draw.normal(size=1500) + 1.2 * positive
    found = functional(
        Functional(lambda w: weighted_auc(scores, positive, w), 1500, 300),
        independent(1500),
        **HOW,
        rng=rng("a"),
    )
    expected = scipy.stats.bootstrap(
        (np.arange(1500),),
        lambda i: weighted_auc(scores, positive, np.bincount(i, minlength=1500)[None] * 1.0)[0],
        n_resamples=500,
        method="percentile",
        vectorized=False,
        rng=draw,
    ).confidence_interval
    assert found.method == "jackknife by case, logit scale"
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.006)


def test_many_perfect_cases_are_not_certain():
    found = functional(mean_of(np.ones(1200)), independent(1200), **HOW, rng=rng("a"))
    assert found.value == 1.0
    assert found.low == pytest.approx(0.9968, abs=1e-4)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_coverage_of_the_auc(confidence):
    shift = 1.2
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    hits = 0
    for run in range(300):
        draw = np.random.default_rng(run)
        positive = np.arange(120) < 40
        scores = draw.normal(size=120) + shift * positive
        measured = Functional(lambda w, s=scores, p=positive: weighted_auc(s, p, w), 120, 40)
        found = functional(
            measured, independent(120), confidence=confidence, resamples=400, rng=draw
        )
        hits += found.low <= truth <= found.high
    assert confidence - 0.035 <= hits / 300 <= confidence + 0.035


def test_coverage_of_a_drop():
    hits = 0
    for run in range(400):
        draw = np.random.default_rng(run)
        clean = draw.random(150) < 0.85
        now = clean & (draw.random(150) < 0.8)
        measured = Ratio(clean * 1.0 - now, clean * 1.0, low=-np.inf)
        found = ratio(measured, independent(150), confidence=0.95, resamples=400, rng=draw)
        hits += found.low <= 0.2 <= found.high
    assert 0.93 <= hits / 400 <= 0.985


def test_two_patients_are_not_more_certain_than_one():
    """The bootstrap of two can only lie between them."""
    few = Ratio(np.array([0.80, 0.81]), np.ones(2))
    found = ratio(few, independent(2), **HOW, rng=rng("a"))
    expected = scipy.stats.t.interval(0.95, 1, loc=0.805, scale=0.005)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert found.method.endswith("at least Student's t of 2 cases")
    many = Ratio(np.linspace(0.7, 0.9, 30), np.ones(30))
    assert ratio(many, independent(30), **HOW, rng=rng("a")).method == "BCa bootstrap by case"


@pytest.mark.parametrize("cases", [3, 5, 12])
def test_coverage_of_few_cases(cases):
    hits = 0
    for run in range(300):
        draw = np.random.default_rng(run)
        measured = Ratio(draw.beta(8, 2, cases), np.ones(cases))
        found = ratio(measured, independent(cases), confidence=0.95, resamples=400, rng=draw)
        hits += found.low <= 0.8 <= found.high
    assert 0.915 <= hits / 300 <= 0.985
