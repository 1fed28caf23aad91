"""What a later run changed in one cell, and the verdict in words."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from palpate.statistics.paired import holm, way

Verdict = Literal[
    "better",
    "worse",
    "worse, within the margin",
    "not worse than the margin",
    "same",
    "cannot tell",
]
GOOD: Final = frozenset({"better", "worse, within the margin", "not worse than the margin", "same"})
"""Verdicts that show that nothing was lost beyond the margin."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the later run changed in one cell.

    Attributes:
        target: the model in the later run, with its defence.
        dataset: label.
        family: perturbation family, "none" for clean.
        perturbation: component name, "none" for clean.
        setting: parameters as canonical JSON.
        metric: "accuracy" or "dice", both per sample, where higher is better; "sdc_rate" for
            faults, where lower is better.
        before: mean over the shared samples.
        after: likewise.
        value: after - before.
        low: lower end of its interval.
        high: upper end.
        n: pairs of (trial, sample); for faults the smaller number of rows.
        gains: cases whose net difference is positive; 0 for faults, which are not paired.
        losses: cases whose net difference is negative.
        gained: names of such cases, largest gain first, as many as asked for.
        lost: likewise, largest loss first.
        p: two-sided.
        p_holm: adjusted over all cells compared.
        verdict: in words.
        method: of the interval.
    """

    target: str
    dataset: str
    family: str
    perturbation: str
    setting: str
    metric: str
    before: float
    after: float
    value: float
    low: float
    high: float
    n: int
    gains: int
    losses: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    p: float
    p_holm: float
    verdict: Verdict
    method: str


def judged(rows: list[Change], *, margin: float | None, confidence: float) -> Iterator[Change]:
    """Adjust the p-values over all rows and put each row into words."""
    tested = [row for row in rows if row.verdict != "same"]
    adjusted = dict(zip(map(id, tested), holm([row.p for row in tested]), strict=True))
    for row in rows:
        if row.verdict == "same":
            yield replace(row, low=0.0, high=0.0, method="the same cell in both runs")
        else:
            judged = replace(row, p_holm=adjusted[id(row)])
            yield replace(judged, verdict=_verdict(judged, margin=margin, level=1 - confidence))


def _verdict(row: Change, *, margin: float | None, level: float) -> Verdict:
    """Better and worse need the interval and the adjusted p-value, a margin the interval alone."""
    unpaired = row.metric == "sdc_rate"
    low, high = (-row.high, -row.low) if unpaired else (row.low, row.high)
    told = unpaired or way(row.value, gains=row.gains, losses=row.losses) != 0
    sure = told and row.p_holm < level
    if sure and low > 0:
        return "better"
    worse = sure and high < 0
    if margin is not None and low > -margin:
        return "worse, within the margin" if worse else "not worse than the margin"
    return "worse" if worse else "cannot tell"
