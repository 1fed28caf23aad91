"""Does a stronger attack leave no more right than a weaker one, sample by sample?"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from palpate.metrics.base import Values
from palpate.statistics._check import Verdict
from palpate.statistics.paired import sign_test

SURE: Final = 0.05  # p-value below which a wrong order is no chance
_SLIGHT: Final = 0.005  # mean score by which masks may differ without meaning anything


def wrong_order(
    weak: Values,
    strong: Values,
    *,
    under: str,
    cases: NDArray[np.intp] | None = None,
    among: int = 1,
) -> tuple[Verdict, str] | None:
    """None if the attack that must be the stronger one is; else how sure it is that it is not.

    A sign test over the cases' net differences, with Bonferroni's correction.

    Args:
        weak: score per sample that the weaker attack leaves.
        strong: the same samples under the stronger one.
        under: the weaker one in words.
        cases: number of each sample's case; None where each sample is one.
        among: pairs of attacks that are looked at.
    """
    if not len(weak) or strong.mean() <= weak.mean() + _SLIGHT:
        return None
    whose = np.arange(len(weak)) if cases is None else cases
    better, worse, _ = sign_test(strong - weak, whose)
    p = float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue)
    p = min(1.0, p * among)
    evidence = (
        f"score {strong.mean():.3f} against {weak.mean():.3f} under {under}: {better}"
        f" {'samples' if cases is None else 'cases'} better off, {worse} worse off"
        f" (p = {p:.2g}{f', corrected for {among} pairs' if among > 1 else ''})"
    )
    return ("fail" if p < SURE else "warn"), evidence


def standing(scores: list[float], clean: list[float]) -> Values:
    """Score per sample, no better than clean."""
    return np.fmin(np.array(scores, dtype=float), np.array(clean, dtype=float))
