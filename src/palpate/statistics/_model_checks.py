"""Is the model fit to be attacked? It must answer alike, give gradients, and see its own inputs.

Sources: the warnings of AutoAttack (Croce and Hein, arXiv 2003.01690, `checks.py`); Pintor et al.,
"Indicators of Attack Failure" (arXiv 2106.09947), section 3.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from scipy.stats import binomtest

from palpate.statistics._check import Check, Verdict
from palpate.statistics._order import SURE
from palpate.statistics._probes import Probed

RANDOM: Final = "same input, same answer"
COMPANY: Final = "answers do not hang on the rest of the batch"
LOGITS: Final = "output is logits, not probabilities"
GRADIENTS: Final = "gradients reach the input"
BOX: Final = "stable answers in a small box"
NORMALISATION: Final = "normalisation applied once"
MODEL_CHECKS: Final = (RANDOM, COMPANY, LOGITS, GRADIENTS, BOX, NORMALISATION)

_REPEAT = 1e-4  # share of the largest logit, as in AutoAttack
_ROUNDING = 1e-3  # the same for other batches, whose sums are ordered otherwise
_SHARE = 0.1  # of the samples without a gradient, beyond which an attack is no attack
_BOX, _WILD = 0.1, 0.5  # relative change of the loss within a quarter of a grey level
_FAR = 1.0  # deviations between what a batch norm met in training and what it meets now
_CLOSE = 0.01

Finding = tuple[Verdict, str]


def model_checks(probes: list[Probed]) -> Iterator[Check]:
    """One row per check and probed model."""
    judges: dict[str, Callable[[Mapping[str, Any]], Finding | None]] = {
        RANDOM: _repeats,
        COMPANY: _alone,
        LOGITS: _logits,
        GRADIENTS: _gradients,
        BOX: _box,
        NORMALISATION: _once,
    }
    for name, judge in judges.items():
        for probed in probes:
            found = judge(probed.found) if probed.found else None
            if found is not None:
                yield Check(name, found[0], probed.model, found[1])


def _repeats(found: Mapping[str, Any]) -> Finding:
    answers, count = found["answers"], found["samples"]
    wrong: list[str] = []
    if answers["training"]:
        names = [name or "the model itself" for name in answers["training"]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        wrong.append(f"in training mode: {', '.join(names[:3])}{more}")
    apart = answers["repeat"]
    if apart["largest"] > _REPEAT:
        wrong.append(
            f"two answers to the same {count} images differ by up to {apart['largest']:.2g} of the"
            f" largest logit, {apart['decisions']} of them in the decision"
        )
    if answers["state_changed"]:
        wrong.append("asking changes the model's buffers")
    if wrong:
        return "fail", "; ".join(wrong)
    return "pass", f"{count} images asked twice, no layer in training mode"


def _alone(found: Mapping[str, Any]) -> Finding | None:
    answers = found["answers"]
    if answers["repeat"]["largest"] > _REPEAT:
        return None  # no two answers are alike anyway
    apart = answers["company"]
    if apart["largest"] > _ROUNDING:
        evidence = (
            f"in half a batch the logits differ by up to {apart['largest']:.2g} of the largest,"
            f" {apart['decisions']} of {found['samples']} decisions"
        )
        return "fail", evidence
    return "pass", f"whole and half batches differ by {apart['largest']:.1g} of the largest logit"


def _logits(found: Mapping[str, Any]) -> Finding:
    if found["answers"]["probabilities"]:
        return "warn", "all outputs lie in [0, 1] and add up to 1, as those of a softmax do"
    return "pass", "outputs do not add up to 1"


def _gradients(found: Mapping[str, Any]) -> Finding | None:
    if "gradients" not in found:
        return None
    count, said, worst = found["samples"], [], 0.0
    for loss, counts in found["gradients"].items():
        said.append(f"{loss}: {counts['zero']} zero, {counts['not_finite']} not finite")
        worst = max(worst, (counts["zero"] + counts["not_finite"]) / count)
    evidence = f"of the gradients of {count} images, by {'; by '.join(said)}"
    return ("fail" if worst > _SHARE else "warn" if worst else "pass"), evidence


def _box(found: Mapping[str, Any]) -> Finding | None:
    if "box" not in found:
        return None
    change = float(found["box"])
    verdict: Verdict = "fail" if change > _WILD else "warn" if change > _BOX else "pass"
    evidence = f"median relative change of the loss {change:.2g} within a quarter of a grey level"
    return verdict, evidence


def _once(found: Mapping[str, Any]) -> Finding:
    seen = found["preparation"]
    own, declared, raw = seen["own"], seen["declared"], seen.get("raw")
    shift = declared["shift"]
    if raw is None:
        if shift is not None and shift > 2 * _FAR:
            return "warn", f"the first batch norm meets inputs {shift:.1f} deviations from training"
        return "pass", "the target hands its input on as it is; only the model can normalise it"
    if own is not None and _same(own, seen):
        return "fail", "the model normalises its input by the very numbers that the target does"
    with_, without = np.array(declared["loss"]), np.array(raw["loss"])
    lower = int((without < with_).sum())
    apart = int((without != with_).sum())
    p = binomtest(lower, apart, 0.5, alternative="greater").pvalue if apart else 1.0
    better = without.mean() < with_.mean() and p < SURE
    said = f"loss {with_.mean():.3g} as declared, {without.mean():.3g} without the normalisation"
    strange = shift is not None and shift > _FAR and shift > 3 * raw["shift"]
    if shift is not None:
        said += (
            f"; the first batch norm meets inputs {shift:.2g} and {raw['shift']:.2g} deviations"
            " from training"
        )
    if own is not None:
        said += "; the model rescales its input itself"
    if better and (own is not None or strange):
        return "fail", said
    return ("warn" if better or strange else "pass"), said


def _same(own: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Whether the model's own factor and offset are those of the target's mean and deviation."""
    channels = len(own["factor"])
    mean, std = (np.broadcast_to(seen[k], channels).astype(float) for k in ("mean", "std"))
    factor, offset = np.array(own["factor"]), np.array(own["offset"])
    near = np.abs(factor * std - 1) < _CLOSE
    return bool((near & (np.abs(offset + mean / std) < _CLOSE * (1 + np.abs(mean / std)))).all())
