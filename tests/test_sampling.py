import math

import numpy as np
import pytest

from palpate.errors import ConfigError
from palpate.sampling import Tally, allocate, deviations, estimate, until
from palpate.statistics.sample_size import faults_for

# sign, top exponent bit, other exponent bits and mantissa of a float32 model without ReLU
SIZES = [350_000, 350_000, 7 * 350_000, 23 * 350_000]
RATES = [0.01, 0.95, 0.011, 0.0]
TRUTH = sum(n * p for n, p in zip(SIZES, RATES, strict=True)) / sum(SIZES)


def draws(generator):
    return lambda i, count: (generator.random(count) < RATES[i]).astype(float)


def test_two_thousand_stopped_campaigns_cover_the_truth():
    """And they take at least 10 times fewer trials than uniform sampling at the same margin."""
    covered, trials = 0, 0
    for repetition in range(2000):
        rate, _ = until(draws(np.random.default_rng(repetition)), SIZES, margin=0.003)
        covered += rate.low <= TRUTH <= rate.high
        trials += rate.trials
        assert rate.margin <= 0.003
    uniform = faults_for(0.003, population=sum(SIZES), share=TRUTH)
    assert 0.93 <= covered / 2000 <= 0.975
    assert uniform / (trials / 2000) >= 10


def test_fixed_allocations_cover_the_truth():
    covered = {"even": 0, "size": 0}
    plans = {"even": [200] * 4, "size": allocate(SIZES, 800)}
    for repetition in range(1000):
        draw = draws(np.random.default_rng(repetition))
        for name, plan in plans.items():
            tallies = [Tally(n).plus(draw(i, k)) for i, (n, k) in enumerate(zip(SIZES, plan))]  # noqa: B905
            rate = estimate(tallies)
            covered[name] += rate.low <= TRUTH <= rate.high
    assert min(covered.values()) >= 930  # few trials of a quiet stratum leave it wide


def test_the_estimate_is_the_exactly_weighted_mean():
    tallies = [Tally(10, 5, 5.0, 5.0), Tally(30, 10, 1.0, 1.0)]
    assert estimate(tallies).value == pytest.approx(0.25 * 1 + 0.75 * 0.1)


def test_a_memory_drawn_completely_is_known_exactly():
    rate = estimate([Tally(4, 4, 1.0, 1.0), Tally(6, 6, 0.0, 0.0)])
    assert (rate.low, rate.value, rate.high) == (0.1, 0.1, 0.1)
    assert math.isinf(rate.equivalent)
    nearly = estimate([Tally(1000, 999, 100.0, 100.0)])
    far = estimate([Tally(10**9, 999, 100.0, 100.0)])
    assert nearly.margin < far.margin / 10


def test_one_stratum_is_the_wilson_interval_of_a_simple_sample():
    from palpate.sampling import wilson

    rate = estimate([Tally(10**12, 4000, 800.0, 800.0)])
    low, high = wilson(0.2, 4000, confidence=0.95)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-5)
    assert rate.equivalent == pytest.approx(4000, rel=1e-3)


def test_allocations():
    assert allocate([100, 300], 40) == [10, 30]
    assert allocate([100, 300], 40, spread=[3.0, 1.0]) == [20, 20]
    assert allocate([5, 1000], 100, spread=[9.0, 0.001]) == [5, 95]
    assert allocate([10, 10], 4, floor=3) == [3, 3]
    assert allocate([3, 3], 100) == [3, 3]
    assert sum(allocate([7, 11, 13], 10)) == 10
    assert allocate([10, 10], 6, spread=[0.0, 1.0], floor=0) == [0, 6]


def test_a_quiet_stratum_keeps_a_deviation():
    quiet, loud = deviations([Tally(10**6, 50), Tally(10**6, 50, 25.0, 25.0)])
    assert 0 < quiet < loud == pytest.approx(0.5)


def test_wrong_values_are_refused():
    with pytest.raises(
        ConfigError, match="stratum 1: expected 1 to 5 trials, as many as faults, got 0"
    ):
        estimate([Tally(5, 1), Tally(5, 0)])
    with pytest.raises(ConfigError, match="margin: expected a value between 0 and 1, got 0"):
        until(lambda i, n: [0.0] * n, [10], margin=0)
