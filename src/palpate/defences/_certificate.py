"""Certificates of a smoothed model: how far, in L2, no disturbance can change the answer.

One class out of several: Cohen et al., arXiv 1902.02918, Certify (section 3.2.2), with the
Clopper-Pearson lower end of the vote. Pixels and labels: Fischer et al., arXiv 2107.00228,
SegCertify (section 5), one binomial test each, the error of all together held by Holm's or
Bonferroni's correction.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, binom, norm
from torch import Tensor

from palpate.outcome import Certificate
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Prediction

_CHUNK = 64  # noisy copies per pass


@dataclass(frozen=True)
class Plan:
    """How much noise, how many copies, how sure; see `RandomisedSmoothing`."""

    sigma: float
    selection: int
    draws: int
    confidence: float
    threshold: float
    correction: Literal["holm", "bonferroni"]


def prove(target: Target, batch: Batch, plan: Plan, seeds: Seeds) -> tuple[Certificate, ...]:
    """One certificate per sample.

    Args:
        target: the bare model.
        batch: undisturbed samples.
        plan: how.
        seeds: the draws of a sample hang on its id alone.
    """
    references = batch.references.cpu().numpy()
    found: list[Certificate] = []
    for i, seed in enumerate(seeds.per_sample(batch.samples)):
        generator = torch.Generator().manual_seed(seed)
        first = _counts(target, batch, i, plan.selection, plan.sigma, generator)
        second = _counts(target, batch, i, plan.draws, plan.sigma, generator)
        if first.ndim == 1:
            found.append(_one_class(first, second, int(references[i]), plan))
        else:
            found.append(_many(first, second, references[i], plan))
    return tuple(found)


def lower_end(hits: int, draws: int, confidence: float) -> float:
    """One-sided Clopper-Pearson lower end of a share.

    Args:
        hits: out of `draws`.
        draws: number of trials.
        confidence: of the end.
    """
    return float(beta.ppf(1 - confidence, hits, draws - hits + 1)) if hits else 0.0


def rejected(
    p_values: NDArray[np.float64], *, level: float, correction: Literal["holm", "bonferroni"]
) -> NDArray[np.bool_]:
    """Which tests of many hold together at one level.

    Args:
        p_values: (tests,).
        level: chance that any of those that are rejected is wrong.
        correction: Holm's step-down (1979), or Bonferroni's.
    """
    count = len(p_values)
    if correction == "bonferroni":
        return p_values <= level / count
    order = np.argsort(p_values, kind="stable")
    holds = p_values[order] <= level / (count - np.arange(count))
    kept = np.zeros(count, dtype=bool)
    kept[order] = np.cumprod(holds).astype(bool)
    return kept


def _one_class(
    first: NDArray[np.int64], second: NDArray[np.int64], reference: int, plan: Plan
) -> Certificate:
    top = int(first.argmax())
    low = lower_end(int(second[top]), plan.draws, plan.confidence)
    if low <= 0.5:
        return Certificate(radius=0.0, certified=0.0, abstained=1.0)
    radius = plan.sigma * float(norm.ppf(low))
    return Certificate(radius=radius, certified=float(top == reference), abstained=0.0)


def _many(
    first: NDArray[np.int64], second: NDArray[np.int64], reference: NDArray[Any], plan: Plan
) -> Certificate:
    """Votes are (answers, *places)."""
    top = first.argmax(axis=0)
    hits = np.take_along_axis(second, top[None], axis=0)[0]
    p_values = binom.sf(hits.ravel() - 1, plan.draws, plan.threshold)
    sure = rejected(p_values, level=1 - plan.confidence, correction=plan.correction)
    right = sure & (top.ravel() == reference.ravel())
    return Certificate(
        radius=plan.sigma * float(norm.ppf(plan.threshold)),
        certified=float(right.mean()),
        abstained=float((~sure).mean()),
    )


@torch.no_grad()
def _counts(
    target: Target, batch: Batch, i: int, copies: int, sigma: float, generator: torch.Generator
) -> NDArray[np.int64]:
    """Votes of noisy copies of one sample; an output that is not finite votes for nothing.

    Returns:
        (classes, *places), or (2, labels, *places) of no and yes where classes go together.
    """
    image = batch.images[i : i + 1]
    prompts = None if batch.prompts is None else batch.prompts[i : i + 1]
    total: Tensor | None = None
    for start in range(0, copies, _CHUNK):
        count = min(_CHUNK, copies - start)
        noise = torch.randn((count, *image.shape[1:]), generator=generator)
        noisy = (image.cpu() + sigma * noise).to(target.device)
        tokens = None if prompts is None else target.tokens(prompts * count)
        logits = target.logits(noisy, tokens)
        answer = Prediction(logits, target.task)
        if answer.exclusive:
            chosen = torch.nn.functional.one_hot(answer.decisions, logits.shape[1]).movedim(-1, 1)
        else:
            chosen = torch.stack([1 - answer.decisions, answer.decisions], dim=1)
        usable = answer.finite.reshape(-1, *(1 for _ in chosen.shape[1:]))
        votes = (chosen * usable).sum(dim=0)
        total = votes if total is None else total + votes
    assert total is not None
    return total.cpu().numpy()
