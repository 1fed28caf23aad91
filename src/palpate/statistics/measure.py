"""From what a metric measures to an estimate: the one place that picks the interval's method."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from palpate.metrics.base import Macro, Measurement, Ratio, Share, Values
from palpate.sampling import wilson
from palpate.statistics import proportions, resampling
from palpate.statistics.estimate import Design, Estimate, rng


def estimate(
    measured: Measurement, design: Design, *, confidence: float, resamples: int, name: str
) -> Estimate:
    """Value and interval of one measurement.

    Args:
        measured: from `Metric.measure`.
        design: how its rows were drawn.
        confidence: in (0, 1).
        resamples: bootstrap draws where there is no closed form.
        name: seeds the bootstrap.
    """
    if isinstance(measured, Share):
        return proportions.share(measured.values, design, confidence=confidence)
    if isinstance(measured, Macro):
        parts = [proportions.share(p.values, design, confidence=confidence) for p in measured.parts]
        found = proportions.weighted_mean(parts, linked=_linked(measured, design))
        return replace(found, units=found.units * _unshared(measured, design))
    draw = rng("bootstrap", name)
    if isinstance(measured, Ratio):
        return resampling.ratio(
            measured, design, confidence=confidence, resamples=resamples, rng=draw
        )
    return resampling.functional(
        measured, design, confidence=confidence, resamples=resamples, rng=draw
    )


def stratified(
    measured: Share, design: Design, *, strata: NDArray[np.intp], shares: Values, confidence: float
) -> Estimate:
    """Share over a population that was sampled evenly from unequal strata.

    Wilson's interval over the equivalent units is too optimistic where a heavy stratum happens to
    show nothing, so it is widened to the narrower of two that assume nothing about such strata: the
    one recovered from the strata's own intervals, and Wilson's with min(n_h / W_h) units, which
    bounds the variance: sum W_h^2 p_h (1 - p_h) / n_h <= max(W_h / n_h) p (1 - p).

    Args:
        measured: values per row.
        design: crossed.
        strata: (rows,) stratum number from 0.
        shares: (strata,) share of the population in each; what they miss of 1 was never drawn and
            may hold anything, so the interval is widened by it.
        confidence: in (0, 1).
    """
    parts = [
        proportions.share(
            np.where(strata == s, measured.values, np.nan), design, confidence=confidence
        )
        for s in range(len(shares))
    ]
    found = proportions.weighted_mean(parts, weights=shares.tolist())
    if found.value is None or found.low is None or found.high is None:
        return found
    units = _equivalent(parts, shares, found.value)
    weights = (shares / shares.sum()).tolist()  # plain numbers, which every export can write
    bound = min(p.units / w for p, w in zip(parts, weights, strict=True) if w > 0)
    low, high = wilson(found.value, units, confidence=confidence)
    lowest, highest = wilson(found.value, bound, confidence=confidence)
    low, high = min(low, max(lowest, found.low)), max(high, min(highest, found.high))
    method = f"Wilson over {len(shares)} strata, {units:.3g} effective units"
    if (missed := max(0.0, 1 - float(shares.sum()))) > 1e-9:
        low, high = low * (1 - missed), high * (1 - missed) + missed
        method += f"; {missed:.1%} of the population never drawn"
    return Estimate(found.value, low, high, confidence, found.n, units, method)


def _equivalent(parts: list[Estimate], shares: Values, value: float) -> float:
    """Units of a simple random sample with the same variance (Kish 1965, 8.2).

    A stratum where nothing was seen is taken as if one more unit had shown the overall rate.
    """
    known = [(p, w) for p, w in zip(parts, shares.tolist(), strict=True) if p.value is not None]
    weights = np.array([w for _, w in known]) / sum(w for _, w in known)
    units = np.array([p.units for p, _ in known])
    if not 0 < value < 1:
        return float(1 / (weights**2 / units).sum())
    rates = np.array([((p.value or 0.0) * p.units + value) / (p.units + 1) for p, _ in known])
    return float(value * (1 - value) / (weights**2 * rates * (1 - rates) / units).sum())


def reweighted(measured: Ratio, strata: NDArray[np.intp], shares: Values) -> Ratio:
    """The same ratio with each row weighted by the population that it stands for, 1 on average."""
    weights = (shares / np.bincount(strata, minlength=len(shares)))[strata]
    weights /= weights.mean()
    return replace(
        measured, numerator=measured.numerator * weights, denominator=measured.denominator * weights
    )


def widened(found: Estimate, measured: Ratio, *, missed: float) -> Estimate:
    """Let the part of the population that was never drawn hold anything at all.

    Args:
        found: of the part that was drawn.
        measured: gives the range of possible values.
        missed: share of the population, 0 to 1.
    """
    if found.low is None or found.high is None or missed < 1e-9:
        return found
    base = float(np.nanmean(measured.denominator))
    floor = measured.low if np.isfinite(measured.low) else min(0.0, 1 - 1 / base)
    return replace(
        found,
        low=min(found.low, found.low * (1 - missed) + floor * missed),
        high=max(found.high, found.high * (1 - missed) + measured.high * missed),
        method=f"{found.method}; {missed:.1%} of the population never drawn",
    )


def _linked(measured: Macro, design: Design) -> bool:
    """Whether one case has rows in more than one part."""
    return _unshared(measured, design) < 1


def _unshared(measured: Macro, design: Design) -> float:
    """Cases over cases counted once in each part: 1 where no part shares one with another."""
    holders = [set(design.cases[~np.isnan(p.values)].tolist()) for p in measured.parts]
    return len(set().union(*holders)) / max(1, sum(len(h) for h in holders))
