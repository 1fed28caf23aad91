import pytest

from palpate.errors import ConfigError
from palpate.statistics.proportions import wilson
from palpate.statistics.sample_size import cases_for, faults_for


def test_published_number_up_to_the_rounding_of_t():
    assert faults_for(0.01, confidence=0.99) == pytest.approx(16641, rel=0.004)


@pytest.mark.parametrize("population", [1, 10, 1000, 10**9])
def test_a_finite_population_needs_no_more_than_itself(population):
    n = faults_for(0.01, population=population)
    assert 1 <= n <= population
    assert n <= faults_for(0.01)


def test_the_formula_by_hand():
    # N = 1000, e = 0.05, t = 1.95996, p = 0.5: 1000 / (1 + 0.0025 * 999 / 0.96036)
    assert faults_for(0.05, population=1000) == 278


def test_cases_for_is_the_smallest_that_is_narrow_enough():
    n = cases_for(0.05, share=0.85)
    widths = [wilson(0.85, k, confidence=0.95) for k in (n - 1, n)]
    assert widths[1][1] - widths[1][0] <= 0.1 < widths[0][1] - widths[0][0]


@pytest.mark.parametrize(
    "bad", [{"margin": 0}, {"margin": 0.1, "confidence": 1}, {"margin": 0.1, "share": 2}]
)
def test_values_out_of_range(bad):
    with pytest.raises(ConfigError, match="expected a value"):
        cases_for(**bad)
    with pytest.raises(ConfigError, match="expected"):
        faults_for(**bad)


def test_an_empty_population_is_refused():
    with pytest.raises(ConfigError, match="population: expected 1 or more, got 0"):
        faults_for(0.1, population=0)
