"""Wilson intervals for shares, also where rows are not independent.

Let x be values in [0, 1] with mean p. Their variance is at most p (1 - p), with equality for 0/1
values, so the binomial variance is never too small. What clustering changes is the number of
independent units. With intraclass correlation r, and weights that count every row alike,

    Var(mean) = p (1 - p) [ (1 - r) / inner + r / K ]

where K = n^2 / sum(m_c^2) is Kish's number of equal cases for case sizes m_c, and `inner` is the
number of rows (nested design) or, where one fault hits all cases, the number of faults: trials are
taken as fully correlated inside, since a fault that nobody drew may spoil every case. The bracket's
inverse is the number of units that enters Wilson's formula.

r is estimated from the case means, then shrunk towards 1 as if one more informative case had shown
full correlation: r' = (m r + 1) / (m + 1), with m the cases that show both a hit and the lack of
one, counted as min(cases with a hit, cases with a miss). At p = 0 or p = 1 nothing is known of r,
so r' = 1 and the units are the K cases, or the trials if these are fewer.

Sources: Wilson 1927; Newcombe 1998 (method 3); Kish 1965, section 8.2 (effective sample size); Zou
and Donner 2008 (intervals of a sum from the intervals of its parts, used for macro averages).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palpate.sampling import wilson
from palpate.statistics.estimate import Design, Estimate, undefined

Values = NDArray[np.float64]


def effective_units(values: Values, design: Design) -> float:
    """How many independent units the rows are worth; see the module's head.

    Args:
        values: (rows,) in [0, 1], no NaN.
        design: of the same rows.

    Returns:
        At least 1 and at most the number of rows (of trials, if crossed).
    """
    n = len(values)
    sizes = np.bincount(design.cases)
    kish = n * n / float((sizes**2).sum())
    per_trial = np.bincount(design.trials)
    inner = n * n / float((per_trial**2).sum()) if design.crossed else float(n)
    if kish >= n:
        return min(inner, kish)
    correlation = _shrunk_correlation(values, design.cases, kish)
    return min(inner, 1 / ((1 - correlation) / inner + correlation / kish))


def _shrunk_correlation(values: Values, cases: NDArray[np.intp], kish: float) -> float:
    n, p = len(values), float(values.mean())
    sizes = np.bincount(cases)
    sums = np.bincount(cases, weights=values)
    misses = sizes - sums
    informative = min(int((sums > 0).sum()), int((misses > 0).sum()))
    if informative == 0 or len(sizes) < 2:
        return 1.0
    spread = float(((sums - sizes * p) ** 2).sum()) / n**2 * len(sizes) / (len(sizes) - 1)
    found = (spread / (p * (1 - p)) - 1 / n) / (1 / kish - 1 / n)
    return (informative * min(1.0, max(0.0, found)) + 1) / (informative + 1)


def share(values: Values, design: Design, *, confidence: float) -> Estimate:
    """Mean of values in [0, 1] with Wilson's interval over the effective units.

    Args:
        values: (rows,) in [0, 1]; NaN rows do not count.
        design: of the same rows.
        confidence: in (0, 1).
    """
    counted = np.flatnonzero(~np.isnan(values))
    if not len(counted):
        return undefined(confidence, why="no row counts")
    kept, design = values[counted], design.take(counted)
    units = effective_units(kept, design)
    value = float(np.clip(kept.mean(), 0.0, 1.0))
    low, high = wilson(value, units, confidence=confidence)
    method = "Wilson" if units == len(kept) else f"Wilson, {units:.3g} effective units"
    return Estimate(value, low, high, confidence, len(kept), units, method)


def weighted_mean(
    parts: Sequence[Estimate], *, weights: Sequence[float] | None = None, linked: bool = False
) -> Estimate:
    """Weighted mean of shares, its interval recovered from theirs (Zou and Donner 2008).

    Args:
        parts: shares; undefined ones are left out and the weights rescaled.
        weights: one per part, zero or more; equal by default.
        linked: whether the parts rest on the same cases; their errors are then taken to point the
            same way instead of being independent.
    """
    given = [1.0] * len(parts) if weights is None else list(weights)
    pairs = [(p, w) for p, w in zip(parts, given, strict=True) if p.value is not None and w > 0]
    if not pairs:
        return undefined(parts[0].confidence if parts else 0.95, why="no row counts")
    scaled = np.array([w for _, w in pairs]) / sum(w for _, w in pairs)
    value, low, high = (
        np.array([getattr(p, f) for p, _ in pairs]) for f in ("value", "low", "high")
    )
    down, up = scaled * (value - low), scaled * (high - value)
    norm = 1 if linked else 2
    mean = float(scaled @ value)
    if abs(mean - round(mean)) < 1e-12:  # 0.9999999999999998 of parts that are all 1
        mean = float(round(mean))
    return Estimate(
        value=mean,
        low=max(0.0, mean - float(np.linalg.norm(down, norm))),
        high=min(1.0, mean + float(np.linalg.norm(up, norm))),
        confidence=pairs[0][0].confidence,
        n=sum(p.n for p, _ in pairs),
        units=float(sum(p.units for p, _ in pairs)),
        method=f"Wilson per part, combined over {len(pairs)}",
    )
