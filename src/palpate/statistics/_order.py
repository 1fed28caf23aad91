"""Does a stronger attack leave no more right than a weaker one, sample by sample?"""

from typing import Final

import numpy as np
from scipy.stats import binomtest

from palpate.metrics.base import Values
from palpate.statistics._check import Verdict

SURE: Final = 0.05  # p-value below which a wrong order is no chance
_SLIGHT: Final = 0.005  # mean score by which masks may differ without meaning anything


def wrong_order(weak: Values, strong: Values, *, under: str) -> tuple[Verdict, str] | None:
    """None if the attack that must be the stronger one is; else how sure it is that it is not.

    Args:
        weak: score per sample that the weaker attack leaves.
        strong: the same samples under the stronger one.
        under: the weaker one in words.
    """
    if not len(weak) or strong.mean() <= weak.mean() + _SLIGHT:
        return None
    better, worse = int((strong > weak).sum()), int((strong < weak).sum())
    p = float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue)
    evidence = (
        f"score {strong.mean():.3f} against {weak.mean():.3f} under {under}: {better}"
        f" samples right again, {worse} newly wrong (p = {p:.2g})"
    )
    return ("fail" if p < SURE else "warn"), evidence


def standing(scores: list[float], clean: list[float]) -> Values:
    """Score per sample, no better than clean."""
    return np.fmin(np.array(scores, dtype=float), np.array(clean, dtype=float))
