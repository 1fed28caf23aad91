"""HopSkipJump: the nearest broken input from decisions alone, walking along the boundary.

Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack",
arXiv 1904.02144, algorithm 2. Scores and gradients are never read: a query says broken or not.

| code | meaning | symbol | section |
|---|---|---|---|
| queries | most queries for each sample | – | V |
| samples | queries for the first estimate of a direction, √t times as many later | B_0 | IV-C |
| near | broken point at the boundary | x̃_t | IV |
| _slope | direction that leads into the other class | v_t | eq. 16 |
| reach | length of the draws around `near` | δ_t | eq. 15 |
| _tolerance | width at which a bisection ends, as a share of the distance | θ | IV-C |
| stride | length of the step off the boundary, halved until it stays broken | ξ_t | eq. 13 |

The walk starts at uniform noise as in the paper. Where that changes nothing the grain grows
coarser, up to an even grey: to many a network all noise of single pixels is the same class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Generator, Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Rows, Search
from palpate.attacks._nearest import CriterionAttack
from palpate.attacks._projection import direction, project, shaped, size
from palpate.errors import ConfigError
from palpate.perturbation import generators
from palpate.types import Bounds, Flags, Images, PerSample

_STARTS: Final = 100  # as in the released code
_FINEST: Final = 1e-6  # below, float32 no longer tells the points of a bisection apart
_FIRST_REACH: Final = 0.1  # of the bounds' width, while the distance says nothing yet
_HALVINGS: Final = 12


@final
@dataclass(frozen=True)
class HopSkipJump(CriterionAttack):
    """Estimate the boundary's normal from decisions, step off along it, bisect back, repeat.

    Attributes:
        queries: most queries for each sample.
        samples: queries for the first estimate of the direction.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    queries: int = 5000
    samples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.queries, None)
        if self.samples < 1:
            raise ConfigError(f"samples: expected 1 or more, got {self.samples}")

    @property
    @override
    def passes(self) -> float:
        return float(self.queries)

    @override
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        walk = _Walk(search, self.norm, self.queries, generators(seeds))
        rows = walk.start()
        near = walk.bisected(search.images, rows)
        for step in range(1, self.queries + 1):
            spare = walk.bisections + 2  # back to the boundary, and at least one try off it
            most = round(self.samples * math.sqrt(step))
            asked = (self.queries - walk.used - spare).clamp(max=most)
            rows = rows[asked[rows] >= min(self.samples, 10)]
            if not len(rows):
                break
            near = walk.stepped(near, rows, asked=asked[rows], step=step)


@dataclass
class _Walk:
    """The points at which the samples are, and the queries that each has spent.

    Attributes:
        search: among samples that are right when clean.
        norm: in which distances are measured.
        queries: most for each sample.
        drawn: one generator per sample.
    """

    search: Search
    norm: str
    queries: int
    drawn: list[Generator]

    def __post_init__(self) -> None:
        count = len(self.search.images)
        self.used = torch.ones(count, dtype=torch.long, device=self.search.images.device)
        features = self.search.images[0].numel()
        power = 1.5 if self.norm == "l2" else 2.0
        self._tolerance = max(features**-power, _FINEST)
        self.bisections = math.ceil(-math.log2(self._tolerance))
        self._scale = features ** (power - 1) * self._tolerance

    @property
    def bounds(self) -> Bounds:
        """Legal range."""
        return self.search.target.bounds

    def broken(self, points: Images, rows: Rows) -> Flags:
        """One query for each of the rows: is the decision another one?"""
        answer = self.search.look(points, rows=rows)
        self.used[rows] += 1
        return self.search.judged(answer.logits, rows) <= 0

    def start(self) -> Rows:
        """Look for any broken point; the rows that have one (it is then the search's nearest)."""
        rows = torch.arange(len(self.search.images), device=self.search.images.device)
        for number in range(min(_STARTS, self.queries - 1)):
            if not len(rows):
                break
            noise = [self._noise(self.drawn[i], number) for i in rows.tolist()]
            found = self.broken(torch.stack(noise).to(rows.device), rows)
            self.search.feel(found, rows)
            rows = rows[~found]
        return torch.nonzero(torch.isfinite(self.search.distance)).flatten()

    def bisected(self, near: Images, rows: Rows) -> Images:
        """`near`, with those rows' nearest points so far brought to the boundary."""
        return near.index_copy(0, rows, self._to_boundary(self.search.best[rows], rows))

    def stepped(self, near: Images, rows: Rows, *, asked: Tensor, step: int) -> Images:
        """One iteration: estimate, step off, bisect back.

        Args:
            near: broken points of all samples, at the boundary.
            rows: who takes part.
            asked: queries for the estimate, per row.
            step: number of the iteration, from 1.
        """
        here, clean = near[rows], self.search.images[rows]
        far = size(here - clean, self.norm)
        reach = far * self._scale
        if step == 1:
            reach = torch.full_like(far, _FIRST_REACH * (self.bounds.high - self.bounds.low))
        way = direction(self._slope(here, rows, asked, reach), self.norm)
        stride, off = far / math.sqrt(step), here
        pending = torch.ones_like(rows, dtype=torch.bool)
        for _ in range(_HALVINGS):
            pending &= self.used[rows] + self.bisections < self.queries
            if not bool(pending.any()):
                break
            moved = (here + shaped(stride, here) * way).clamp(*self.bounds)
            found = torch.zeros_like(pending)
            found[pending] = self.broken(moved[pending], rows[pending])
            off = torch.where(shaped(found, off), moved, off)
            pending &= ~found
            stride = stride / 2
        return near.index_copy(0, rows, self._to_boundary(off, rows))

    def _to_boundary(self, points: Images, rows: Rows) -> Images:
        """Broken points as near to the clean ones as bisection on the way there finds them."""
        clean = self.search.images[rows]
        far = size(points - clean, self.norm)
        low, high = torch.zeros_like(far), torch.ones_like(far)
        for _ in range(self.bisections):
            left = self.used[rows] < self.queries
            if not bool(left.any()):
                break
            middle = (low + high) / 2
            between = self._between(clean, points, middle, far)
            found = torch.zeros_like(left)
            found[left] = self.broken(between[left], rows[left])
            high, low = torch.where(found, middle, high), torch.where(found, low, middle)
        return torch.where(
            shaped(high == 1, points), points, self._between(clean, points, high, far)
        )

    def _between(self, clean: Images, points: Images, share: PerSample, far: PerSample) -> Images:
        if self.norm == "l2":
            return clean + shaped(share, clean) * (points - clean)
        radius = shaped(share * far, clean)
        return project(points, clean, norm="linf", epsilon=radius, bounds=self.bounds)

    def _slope(self, here: Images, rows: Rows, asked: Tensor, reach: PerSample) -> Images:
        """Mean of the draws, each signed by its decision less the mean decision, eq. 16."""
        signed, plain = torch.zeros_like(here), torch.zeros_like(here)
        decided, count = torch.zeros_like(reach), asked.to(reach.dtype)
        for number in range(int(asked.max())):
            mine = torch.nonzero(asked > number).flatten()
            noise = [self._normal(self.drawn[i], here) for i in rows[mine].tolist()]
            around = direction(torch.stack(noise).to(here.device), "l2")
            length = shaped(reach[mine], here)
            points = (here[mine] + length * around).clamp(*self.bounds)
            around = (points - here[mine]) / length  # what the legal range has left of it
            sign = 2.0 * self.broken(points, rows[mine]).to(reach.dtype) - 1
            decided[mine] += sign
            plain[mine] += around
            signed[mine] += shaped(sign, here) * around
        mean = decided / count
        # all alike: the mean itself, towards the broken side or away from the other
        whole = mean.abs() == 1
        return torch.where(shaped(whole, here), signed, signed - shaped(mean, here) * plain)

    def _noise(self, generator: Generator, number: int) -> Images:
        """Uniform noise; its grain doubles with each number, up to one value per channel."""
        shape, bounds = self.search.images.shape[1:], self.bounds
        levels = math.ceil(math.log2(max(shape[1:]))) + 1
        grain = 2 ** (number % levels)
        cells = [max(1, side // grain) for side in shape[1:]]
        drawn = torch.rand((1, shape[0], *cells), generator=generator)
        noise = functional.interpolate(drawn, size=tuple(shape[1:]))[0]
        return (bounds.low + (bounds.high - bounds.low) * noise).to(self.search.images.dtype)

    @staticmethod
    def _normal(generator: Generator, like: Images) -> Tensor:
        return torch.randn(like.shape[1:], generator=generator, dtype=like.dtype)
