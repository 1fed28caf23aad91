"""Randomised smoothing: the answer that most noisy copies of the image get, with its certificate.

Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized Smoothing", arXiv
1902.02918, section 3, and for masks Fischer, Baader, Vechev, "Scalable Certified Segmentation via
Randomized Smoothing", arXiv 2107.00228, section 5. Gradients are those of the mean probability, so
that every attack is adaptive (Salman et al., arXiv 1906.04584, section 2.2).

| code | meaning | symbol | section |
|---|---|---|---|
| sigma | deviation of the noise | σ | Cohen 3 |
| samples | copies that vote on a prediction | n | Cohen 3.2.1 |
| selection | copies that choose what is to be proved | n0 | Cohen 3.2.2 |
| draws | copies that prove it | n | Cohen 3.2.2 |
| confidence | of each certificate | 1 − α | Cohen 3.2.2 |
| threshold | share of the votes that a pixel must have | τ | Fischer 5 |
| radius | σ Φ⁻¹(lower end of the vote), or σ Φ⁻¹(τ) | R | Cohen eq. 3; Fischer 5 |
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from palpate.defences._certificate import Plan, prove
from palpate.defences.base import Defence
from palpate.errors import ConfigError
from palpate.outcome import Certificate
from palpate.registry import Number
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Logits, Tokens, winners

_EDGE: Final = 1e-4  # lead of the majority's logit where the mean probability disagrees
_TINY: Final = 1e-12


@final
@dataclass(frozen=True)
class RandomisedSmoothing(Defence):
    """The target asked about noisy copies of its input; not clamped to the bounds, as published.

    Predictions use the same noise for every image, so that they hang on nothing else; certificates
    draw their own for each sample.

    Attributes:
        sigma: deviation of the noise, in units of the bounds.
        samples: copies that vote on a prediction; each costs a pass.
        selection: copies that choose the answer to certify.
        draws: copies that certify it, on undisturbed images; the more, the larger the radius.
        confidence: of each certificate, for masks of all pixels of one image together.
        threshold: share of the votes that a pixel (or one label of several) must surely have.
        correction: of the many tests on one image.
    """

    sigma: Number = 0.1
    samples: int = 32
    selection: int = 32
    draws: int = 500
    confidence: float = 0.999
    threshold: float = 0.75
    correction: Literal["holm", "bonferroni"] = "holm"

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"sigma: expected more than 0, got {self.sigma}")
        if min(self.samples, self.selection, self.draws) < 1:
            raise ConfigError(
                "expected samples, selection and draws of 1 or more, got"
                f" {self.samples}, {self.selection} and {self.draws}"
            )
        if not 0.5 <= self.confidence < 1 or not 0.5 <= self.threshold < 1:
            raise ConfigError(
                "expected confidence and threshold in [0.5, 1), got"
                f" {self.confidence} and {self.threshold}"
            )

    @override
    def protect(self, target: Target) -> Target:
        return target.with_module(_Smoothed(target, self))


class _Smoothed(nn.Module):
    """Logs of the mean probabilities, in the order that the votes have."""

    std: Tensor

    def __init__(self, target: Target, how: RandomisedSmoothing) -> None:
        super().__init__()
        self.inner = target.module
        self.how = how
        self.register_buffer("std", torch.tensor(target.std), persistent=False)
        self._bare = target
        # the network sees what the target made of the image; its head is read as the target's is
        self._reader = replace(target, mean=(0.0,), std=(1.0,))

    def forward(self, normalised: Tensor, tokens: Tokens | None = None) -> Logits:
        """Same input as the network inside; one logit or plane per class."""
        exclusive = self._reader.is_exclusive
        chances, votes = torch.zeros(()), torch.zeros(())
        for copy in range(self.how.samples):
            noisy = normalised + self._noise(normalised, copy)
            logits = self._reader.logits(noisy, tokens)
            chances = chances + (logits.softmax(dim=1) if exclusive else logits.sigmoid())
            votes = votes + _votes(logits.detach(), exclusive=exclusive)
        chances, votes = chances / self.how.samples, votes / self.how.samples
        return _led(chances, votes) if exclusive else _signed(chances, votes)

    def _noise(self, like: Tensor, copy: int) -> Tensor:
        generator = torch.Generator().manual_seed(Seeds(0, "smoothing", copy).shared())
        drawn = torch.randn((1, *like.shape[1:]), generator=generator).to(like)
        return drawn * self.how.sigma / self.std.reshape(1, -1, *(1 for _ in like.shape[2:]))

    def certify(self, batch: Batch, seeds: Seeds) -> tuple[Certificate, ...]:
        """One certificate per sample, from noise of its own."""
        how = self.how
        plan = Plan(
            how.sigma, how.selection, how.draws, how.confidence, how.threshold, how.correction
        )
        return prove(self._bare, batch, plan, seeds)

    @override
    def extra_repr(self) -> str:
        return repr(self.how)


def _votes(logits: Logits, *, exclusive: bool) -> Tensor:
    if not exclusive:
        return (logits > 0).to(logits.dtype)
    chosen = functional.one_hot(winners(logits), logits.shape[1])
    return chosen.movedim(-1, 1).to(logits.dtype)


def _led(chances: Tensor, votes: Tensor) -> Logits:
    """Log of the mean probability; the class with most votes is put first where it is not."""
    logs = chances.clamp(min=_TINY).log()
    # among equal votes the mean probability decides
    most = (votes + chances.detach() * 1e-6).argmax(dim=1, keepdim=True)
    best = logs.detach().amax(dim=1, keepdim=True)
    short = best + _EDGE - logs.detach().gather(1, most)
    lift = torch.where(logs.detach().argmax(dim=1, keepdim=True) == most, 0.0, short)
    return logs + torch.zeros_like(logs).scatter(1, most, lift)


def _signed(chances: Tensor, votes: Tensor) -> Logits:
    """Log-odds of the mean probability; on the side that has most votes where it is not."""
    safe = chances.clamp(_TINY, 1 - 1e-7)
    odds = safe.log() - (1 - safe).log()
    yes = votes > 0.5
    wrong = yes != (odds.detach() > 0)
    edge = torch.where(yes, _EDGE, -_EDGE)
    return odds + torch.where(wrong, edge - odds.detach(), torch.zeros_like(edge))
