"""Attacks in the order that they must have, tried on a few samples of every model.

Sources: Carlini et al., "On Evaluating Adversarial Robustness" (arXiv 1902.06705), sections 3 to 5;
Athalye et al., "Obfuscated Gradients" (arXiv 1802.00420), section 3.1.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from palpate.statistics._check import Check, fraction
from palpate.statistics._order import standing, wrong_order
from palpate.statistics._probes import Probed

STEPS: Final = "many steps are at least as strong as one"
LADDER: Final = "robust accuracy falls with epsilon"
UNBOUNDED: Final = "unbounded attack reaches total failure"
POINTS: Final = "random points not stronger than gradients"
BLACK: Final = "gradient-free attack not stronger than white-box"
TRANSFER: Final = "transfer attack not stronger than white-box"
STARTS: Final = "several random starts agree"
PROBE_CHECKS: Final = (STEPS, LADDER, UNBOUNDED, POINTS, BLACK, TRANSFER, STARTS)

_LEFT, _MUCH = 0.02, 0.2  # share of the clean score that no limit may leave
_SPREAD, _WIDE = 0.1, 0.25  # mean score by which one start may miss the worst of several


def probe_checks(probes: list[Probed]) -> Iterator[Check]:
    """One row per check and probed model, where the probe could answer."""
    for probed in probes:
        attacks = probed.found.get("attacks")
        if attacks:
            yield from _ordered(probed, attacks)
            yield from _unbounded(probed, attacks)
            yield from _starts(probed, attacks)


def _ordered(probed: Probed, attacks: Mapping[str, Any]) -> Iterator[Check]:
    scores, clean = attacks["scores"], attacks["scores"]["clean"]
    epsilon, count = fraction(attacks["epsilon"]), len(clean)
    once = standing(scores["starts"][0], clean)
    best = np.min([standing(start, clean) for start in scores["starts"]], axis=0)
    steps = attacks["steps"]["many"]
    pairs = (
        (STEPS, "one_step", once, "one step"),
        (POINTS, "random_points", best, f"{attacks['points']} random points"),
        (BLACK, "gradient_free", best, f"{attacks['queries']} queries of square"),
        (TRANSFER, "transfer", best, f"the same attack made on {attacks['surrogate']}"),
    )
    where = f"{steps} gradient steps on {count} images, epsilon {epsilon}"
    for name, key, strong, words in pairs:
        if key in scores:
            weak = standing(scores[key], clean)
            found = wrong_order(weak, strong, under=words)
            said = f"score {strong.mean():.3f} left, {weak.mean():.3f} by {words}"
            yield _check(name, probed, found, where=where, said=said)
    if "double" in scores:
        double = standing(scores["double"], clean)
        found = wrong_order(once, double, under=f"epsilon {epsilon}")
        said = f"score {once.mean():.3f} left, {double.mean():.3f} at twice epsilon"
        yield _check(LADDER, probed, found, where=where, said=said)


def _check(name: str, probed: Probed, found: Any, *, where: str, said: str) -> Check:
    status, evidence = found or ("pass", said)
    return Check(name, status, probed.model, f"{where}: {evidence}")


def _unbounded(probed: Probed, attacks: Mapping[str, Any]) -> Iterator[Check]:
    scores = attacks["scores"]
    if "unbounded" not in scores:
        return
    clean = np.array(scores["clean"])
    left = standing(scores["unbounded"], scores["clean"]).mean()
    share = left / clean.mean() if clean.mean() > 0 else 0.0
    evidence = (
        f"{attacks['steps']['unbounded']} gradient steps without a limit but the legal range leave"
        f" a score of {left:.3f} of {clean.mean():.3f} on {len(clean)} images"
    )
    status = "fail" if share > _MUCH else "warn" if share > _LEFT else "pass"
    yield Check(UNBOUNDED, status, probed.model, evidence)


def _starts(probed: Probed, attacks: Mapping[str, Any]) -> Iterator[Check]:
    clean = attacks["scores"]["clean"]
    each = np.array([standing(start, clean) for start in attacks["scores"]["starts"]])
    missed = float(each.mean() - each.min(axis=0).mean())
    means = " and ".join(f"{value:.3f}" for value in each.mean(axis=1))
    evidence = (
        f"score {means} left by {len(each)} starts, {each.min(axis=0).mean():.3f} by the worst of"
        f" them for each of {len(clean)} images"
    )
    status = "fail" if missed > _WIDE else "warn" if missed > _SPREAD else "pass"
    yield Check(STARTS, status, probed.model, evidence)
