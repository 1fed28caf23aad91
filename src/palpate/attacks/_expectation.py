"""Expectation over the randomness inside a target: what it answers on average over many draws.

Athalye, Engstrom, Ilyas, Kwok, "Synthesizing Robust Adversarial Examples", arXiv 1707.07397,
section 2.1 (EOT); against random defences, Athalye, Carlini, Wagner, arXiv 1802.00420, section 4.2.

| code | meaning | symbol | section |
|---|---|---|---|
| draws | passes whose answers are averaged | – | 1707.07397, 2.2 |
| answer | log of the mean probability over the draws | log E[P(y given t(x))] | 2.1 |

Random numbers hang on sample ids: every sample is asked by itself, as a batch of copies, with
torch's generators set from the sample's own seed and put back afterwards. A target that draws once
for a whole batch answers all copies alike; it is then asked once for each draw. What a target draws
from elsewhere (numpy, a generator of its own) is averaged too, but it is not reproducible.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.attacks._gradient import Rows, Search, some_of
from palpate.attacks._start import reseed
from palpate.types import Images, Logits, Prediction

_ALIKE = 1e-6  # copies that differ by less, as a share of the largest logit, met the same draw


@dataclass
class _Stream:
    """Seeds of one sample, each used once.

    Attributes:
        seed: of the sample.
        used: how many were taken.
    """

    seed: int
    used: int = 0

    def next(self) -> int:
        """Another seed."""
        self.used += 1
        return reseed(self.seed, self.used)


@dataclass
class ExpectedSearch(Search):
    """A search that is told the mean over draws instead of one answer.

    Attributes:
        draws: passes for each point.
        streams: seeds of each sample; see `begin`.
    """

    draws: int = field(default=1, kw_only=True)
    streams: list[_Stream] = field(default_factory=list, kw_only=True)

    @override
    def begin(self, seeds: Sequence[int]) -> None:
        # apart from what the attack itself draws with the same seed
        self.streams = [_Stream(reseed(seed, -2)) for seed in seeds]

    @override
    def part(self, rows: Rows) -> "ExpectedSearch":
        plain = super().part(rows)
        made = ExpectedSearch(
            plain.target,
            plain.images,
            plain.references,
            plain.objective,
            plain.aim,
            plain.nearest,
            plain.success,
            tokens=plain.tokens,
            draws=self.draws,
        )
        made.streams = [self.streams[i] for i in rows.tolist()]
        return made

    @override
    def answer(self, images: Images, rows: Rows | None = None) -> Logits:
        if not len(images):
            return super().answer(images, rows)
        tokens = some_of(self.tokens, rows)
        numbers = range(len(images)) if rows is None else rows.tolist()
        means: list[Tensor] = []
        for place, number in enumerate(numbers):
            words = None if tokens is None else tokens[place : place + 1]
            drawn = self._drawn(images[place : place + 1], words, self.streams[number])
            means.append(_mean(drawn, exclusive=Prediction(drawn, self.target.task).exclusive))
        self.passes += len(images) * (self.draws - 1)
        return torch.cat(means)

    def _drawn(self, image: Images, words: Tensor | None, stream: _Stream) -> Tensor:
        """Logits of one image under so many draws, (draws, classes, *spatial)."""
        copies = image.expand(self.draws, *image.shape[1:])
        asked = None if words is None else words.expand(self.draws, -1)
        with seeded(stream.next(), image.device):
            logits = self.target.logits(copies, asked)
        first, known = logits[:1].detach(), logits.detach()
        if bool(((known - first).abs() > _ALIKE * first.abs().max()).any()):
            return logits
        singles: list[Tensor] = []
        for _ in range(self.draws):
            with seeded(stream.next(), image.device):
                singles.append(self.target.logits(image, words))
        return torch.cat(singles)


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Torch's generators set from a seed inside, and as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _mean(logits: Tensor, *, exclusive: bool) -> Tensor:
    """(draws, classes, *spatial) -> logits of the mean probability, (1, classes, *spatial)."""
    if exclusive:
        mean = logits.log_softmax(dim=1).logsumexp(dim=0, keepdim=True)
        return mean - math.log(len(logits))
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return yes.logsumexp(dim=0, keepdim=True) - no.logsumexp(dim=0, keepdim=True)
