"""How many faults or cases a wanted margin takes.

Leveugle et al., "Statistical fault injection: quantified error and confidence", DATE 2009,
equation 1: n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p))). The paper rounds t (2.58 at 99 %); here t
is the exact normal quantile, so that results are up to 0.4 % smaller than the published tables.
"""

import math

from scipy.special import ndtri

from palpate.errors import ConfigError
from palpate.sampling import wilson


def faults_for(
    margin: float, *, confidence: float = 0.95, population: int | None = None, share: float = 0.5
) -> int:
    """Number of random faults that estimate a rate to within a margin.

    Args:
        margin: half-width of the interval wanted, in (0, 1).
        confidence: in (0, 1).
        population: number of addressable bits; None for an unlimited one.
        share: rate expected; 0.5 is the most cautious.

    Raises:
        ConfigError: a value out of range.
    """
    _check(margin, confidence, share)
    if population is not None and population < 1:
        raise ConfigError(f"population: expected 1 or more, got {population}")
    unlimited = float(ndtri(0.5 + confidence / 2)) ** 2 * share * (1 - share) / margin**2
    if population is None:
        return max(1, math.ceil(unlimited))
    if unlimited == 0:
        return 1
    return min(population, max(1, math.ceil(population / (1 + (population - 1) / unlimited))))


def cases_for(margin: float, *, confidence: float = 0.95, share: float = 0.5) -> int:
    """Smallest number of independent cases whose Wilson interval is no wider than twice a margin.

    Args:
        margin: half of the width wanted, in (0, 1).
        confidence: in (0, 1).
        share: value expected.

    Raises:
        ConfigError: a value out of range.
    """
    _check(margin, confidence, share)
    low, high = 0, 1
    while not _narrow(high, margin, confidence, share):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _narrow(middle, margin, confidence, share):
            high = middle
        else:
            low = middle
    return high


def _narrow(n: int, margin: float, confidence: float, share: float) -> bool:
    low, high = wilson(share, n, confidence=confidence)
    return high - low <= 2 * margin


def _check(margin: float, confidence: float, share: float) -> None:
    for name, value in (("margin", margin), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}: expected a value between 0 and 1, got {value}")
    if not 0 <= share <= 1:
        raise ConfigError(f"share: expected a value from 0 to 1, got {share}")
