"""NES: projected gradient steps whose gradient is estimated from scores alone.

Ilyas, Engstrom, Athalye, Lin, "Black-box Adversarial Attacks with Limited Queries and
Information", arXiv 1804.08598, section 2.2 and algorithm 1: mirrored Gaussian draws around the
iterate.

| code | meaning | symbol | section |
|---|---|---|---|
| queries | most queries for each sample | L | 2.2 |
| samples | queries for one estimate, half of them mirrored | n | 2.2 |
| spread | standard deviation of the draws | σ | 2.2 |
| plus, minus | mirrored queries | θ + σ δ_i, θ − σ δ_i | algorithm 1 |
| way | estimate of the gradient, up to its length | g | algorithm 1 |
| decay | share of the old direction in the new one, 0.9 in the paper's code | – | – |
| step_size | length of one step | η | 2.2 |

Queries are held within the budget and the legal range. What is left of the pair is its own weight
in the sum, in place of 2 σ δ_i, so that a pixel at a border counts with the half that remains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Generator
from typing_extensions import override

from palpate.attacks._climb import LossAttack, check_steps
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._loss import LossName
from palpate.attacks._projection import direction, project, shaped
from palpate.errors import ConfigError
from palpate.perturbation import generators
from palpate.registry import Number
from palpate.types import Images


@final
@dataclass(frozen=True)
class Nes(LossAttack):
    """x ← Π(x + η · direction(Σ (J(x + σ u) − J(x − σ u)) u)), without gradients.

    A sample whose score has reached 0 leaves at once: queries are what this attack costs.

    Attributes:
        queries: most queries for each sample.
        samples: queries for one estimate of the gradient, even.
        spread: standard deviation of the draws, as a share of the bounds' width.
        decay: share of the old direction in the new one; 0 for each estimate by itself.
        step_size: in units of the bounds; None for 2.5 · epsilon / steps, see pgd.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    loss: LossName = field(default="margin", kw_only=True)
    queries: int = 5000
    samples: int = 20
    spread: Number = 0.001
    decay: float = 0.9
    step_size: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.queries, self.step_size)
        if self.samples < 2 or self.samples % 2 or not self.spread > 0:
            raise ConfigError(
                "expected samples of 2 or more, even, and a spread above 0, got"
                f" {self.samples} and {self.spread}"
            )
        if self.queries < self.samples:
            raise ConfigError(
                f"nes: expected queries for one estimate, {self.samples} or more, got"
                f" {self.queries}"
            )
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay: expected 0 or more and less than 1, got {self.decay}")

    @property
    @override
    def passes(self) -> float:
        return float(self.queries)

    @property
    def steps(self) -> int:
        """Steps that the queries allow: each costs its samples and one look at where it led."""
        return max(1, (self.queries - 1) // (self.samples + 1))

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images, rows = search.images, None
        drawn, before = generators(seeds), search.look(search.images).loss
        momentum = torch.zeros_like(images)
        length = 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
        for _ in range(self.steps):
            here = some(images, rows)
            found = direction(self._estimate(search, here, rows, drawn), "l2")
            way = self.decay * some(momentum, rows) + (1 - self.decay) * found
            momentum = put(momentum, rows, way)
            moved = self._inside(here + length * direction(way, self.norm), search, rows)
            search.feel(search.look(moved, rows=rows).loss != some(before, rows), rows)
            images = put(images, rows, moved)
            rows = search.standing(rows)
            if not len(rows):
                break
        return images

    def _estimate(
        self, search: Search, here: Images, rows: Rows | None, drawn: list[Generator]
    ) -> Images:
        """Sum over mirrored pairs of the difference of the loss times that of the queries."""
        mine = drawn if rows is None else [drawn[i] for i in rows.tolist()]
        sigma = self.spread * (search.target.bounds.high - search.target.bounds.low)
        total = torch.zeros_like(here)
        for _ in range(min(self.samples, self.queries) // 2):
            shape, dtype = here.shape[1:], here.dtype
            noise = torch.stack([torch.randn(shape, generator=g, dtype=dtype) for g in mine])
            away = sigma * noise.to(here.device)
            plus = self._inside(here + away, search, rows)
            minus = self._inside(here - away, search, rows)
            up, down = search.look(plus, rows=rows).loss, search.look(minus, rows=rows).loss
            total = total + shaped(up - down, here) * (plus - minus)
        return total

    def _inside(self, images: Images, search: Search, rows: Rows | None) -> Images:
        clean, bounds = some(search.images, rows), search.target.bounds
        return project(images, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)
