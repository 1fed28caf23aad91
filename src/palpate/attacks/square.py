"""Square attack: random search over square changes, without gradients.

Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", arXiv 1912.00049, algorithms 1 to 3. It sees scores only, so an audit
whose white-box attacks it beats has masked gradients.

| code | meaning | symbol | section |
|---|---|---|---|
| queries | most queries for each sample | N | 3.1 |
| first_share | share of the pixels in the first windows | p | 3.2 |
| _stripes | vertical stripes of ± ε | – | 3.3 |
| _tiles | grid of bumps, as many as fit in five by five | – | 3.4 |
| Windows, bump | where and how the image changes | h, η | 3.3, 3.4 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import LossAttack
from palpate.attacks._gradient import Rows, Search
from palpate.attacks._loss import LossName
from palpate.attacks._projection import direction, project
from palpate.attacks._walk import Change, Proposing, Walk
from palpate.attacks._windows import Windows, bump, placed, share_at, side_of
from palpate.errors import CapabilityError, ConfigError
from palpate.perturbation import generators
from palpate.types import Bounds, Images

_TINY = 1e-12
_AT_ONCE = 3  # times the batch: a pass without gradients takes about a third of one with them


@final
@dataclass(frozen=True)
class Square(LossAttack):
    """Keep a random window of changes wherever it raises the loss.

    A sample whose score has reached 0 leaves at once: queries are what this attack costs.

    Attributes:
        queries: most queries for each sample.
        first_share: share of the pixels in the first windows.
        rescale: spread the published schedule for 10,000 queries over `queries`; the standard
            ensemble does not.
    """

    version = 2
    needs: ClassVar[frozenset[str]] = frozenset()

    loss: LossName = field(default="margin", kw_only=True)
    queries: int = 5000
    first_share: float = 0.8
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or not 0 < self.first_share <= 1:
            raise ConfigError(
                "expected queries of 1 or more and a first_share in (0, 1], got"
                f" {self.queries} and {self.first_share}"
            )

    @property
    @override
    def passes(self) -> float:
        return float(self.queries)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        return self.pursue(search, seeds, room=len(search.images))

    def pursue(self, search: Search, seeds: Sequence[int], *, room: int) -> Images:
        """Search, with at most `_AT_ONCE` times `room` images at once; see `_walk`."""
        clean, bounds = search.images, search.target.bounds
        self._check_shape(clean)
        draws = _Draws.of(clean, seeds, self.queries)
        images = self._inside(clean + self._first(clean, draws.first), clean, bounds)
        walk = Walk(search, images)
        # what is drawn inside hangs on the order of asking
        room = 1 if self.eot > 1 else _AT_ONCE * room
        for share, queries in groupby(range(1, self.queries), self._share):
            propose = self._proposing(clean, draws.steps, share, bounds)
            walk.go(propose, max(queries) + 1, room=room)
        return walk.close()

    @override
    def _ask_once(self, search: Search) -> None:
        super()._ask_once(search.copies(_AT_ONCE))

    def _share(self, query: int) -> float:
        """Share of the pixels in the window of a query."""
        first, rescale = self.first_share, self.rescale
        return share_at(query - 1, first=first, queries=self.queries, rescale=rescale)

    def _first(self, clean: Images, draw: Tensor) -> Tensor:
        if self.norm == "linf":
            return self.epsilon * _stripes(clean, draw)
        return self.epsilon * direction(_tiles(clean, draw), "l2")

    def _proposing(self, clean: Images, draws: Tensor, share: float, bounds: Bounds) -> Proposing:
        """One more window of changes, of a share of the pixels."""
        if self.norm == "linf":
            return self._to_the_border(clean, draws, share, bounds)
        spatial = tuple(clean.shape[2:])
        side = side_of(share, spatial, least=3)
        side += 1 - side % 2 if side < min(spatial) else 0
        windows = Windows(side, spatial)

        def propose(images: Images, whose: Tensor, rows: Rows, numbers: Tensor) -> Change:
            start = clean[rows]
            change = self._exchanged(images[whose] - start, draws[rows, numbers], windows)
            moved = start + self.epsilon * direction(change, "l2")
            return Change(None, self._inside(moved, start, bounds).flatten(1))

        return propose

    def _to_the_border(
        self, clean: Images, draws: Tensor, share: float, bounds: Bounds
    ) -> Proposing:
        spatial, channels = tuple(clean.shape[2:]), clean.shape[1]
        windows = Windows(side_of(share, spatial), spatial)
        ends = [self._inside(clean + e, clean, bounds) for e in (-self.epsilon, self.epsilon)]
        borders = torch.stack(ends).flatten(2)

        def propose(images: Images, whose: Tensor, rows: Rows, numbers: Tensor) -> Change:  # noqa: ARG001
            draw = draws[rows, numbers]
            places = windows.places(draw, channels)
            up = (draw[:, -channels:] >= 0.5).long() * len(clean) + rows.unsqueeze(1)
            from_here = (up * borders.shape[2]).unsqueeze(2)
            entries = from_here + places.unflatten(1, (channels, -1))
            return Change(places, borders.take(entries).flatten(1))

        return propose

    def _exchanged(self, change: Tensor, draw: Tensor, windows: Windows) -> Tensor:
        """Move what a second window spends of the budget into a bump in the first one."""
        spatial, channels = tuple(change.shape[2:]), change.shape[1]
        one, two = draw[:, :2], draw[:, 2:4]
        first, second = windows.masks(one), windows.masks(two)
        signs = _signs(draw[:, -channels:], change)
        shape = bump(windows.side, change)
        turned = (draw[:, 4] > 0.5).reshape(-1, 1, 1, 1)
        patch = torch.where(turned, shape.T, shape) * signs
        inside = change * first
        new = placed(patch, one, spatial) + inside / (_norm(inside) + _TINY)
        total = (change**2).flatten(1).sum(dim=1).reshape(-1, 1, 1, 1)
        free = (self.epsilon**2 - total).clamp(min=0) / channels
        spent = (change * (first | second)) ** 2
        length = (free + spent.sum(dim=(2, 3), keepdim=True)).sqrt()
        new = new / (_norm(new) + _TINY) * length
        return torch.where(first, new, torch.where(second, torch.zeros_like(change), change))

    def _inside(self, images: Images, clean: Images, bounds: Bounds) -> Images:
        return project(images, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)

    def _check_shape(self, clean: Images) -> None:
        if self.norm == "l2" and clean.ndim != 4:
            raise CapabilityError(
                "square: expected images (batch, channel, height, width) for l2, got"
                f" {tuple(clean.shape)}"
            )


@dataclass(frozen=True)
class _Draws:
    """All random numbers of each sample, from its own generator.

    Attributes:
        first: (batch, channels · (36 tiles or the image's width)) for the start.
        steps: (batch, queries, two places, a turn, and a sign for each channel).
    """

    first: Tensor
    steps: Tensor

    @classmethod
    def of(cls, clean: Images, seeds: Sequence[int], queries: int) -> "_Draws":
        channels, axes = clean.shape[1], clean.ndim - 2
        start = channels * max(36, clean.shape[-1])
        width = max(5, axes) + channels
        firsts: list[Tensor] = []
        steps: list[Tensor] = []
        for generator in generators(seeds):
            firsts.append(torch.rand(start, generator=generator))
            steps.append(torch.rand((queries, width), generator=generator))
        return cls(torch.stack(firsts).to(clean.device), torch.stack(steps).to(clean.device))


def _signs(draw: Tensor, like: Tensor) -> Tensor:
    """±1 for each sample and channel, (batch, channel, 1, ...)."""
    signs = torch.where(draw < 0.5, -1.0, 1.0).to(like.dtype)
    return signs.reshape(*draw.shape, *(1 for _ in like.shape[2:]))


def _stripes(clean: Images, draw: Tensor) -> Tensor:
    batch, channels, width = len(clean), clean.shape[1], clean.shape[-1]
    signs = torch.where(draw[:, : channels * width] < 0.5, -1.0, 1.0).to(clean.dtype)
    between = (1 for _ in clean.shape[2:-1])
    return signs.reshape(batch, channels, *between, width).expand_as(clean)


def _tiles(clean: Images, draw: Tensor) -> Tensor:
    batch, channels, height, width = clean.shape
    side = max(1, min(height, width) // 5)
    shape = bump(side, clean) if side > 1 else torch.ones((1, 1), device=clean.device)
    made = torch.zeros_like(clean)
    places = [
        (top, left)
        for top in range((height % side) // 2, height - side + 1, side)
        for left in range((width % side) // 2, width - side + 1, side)
    ]
    signs = torch.where(draw < 0.5, -1.0, 1.0).to(clean.dtype)
    for number, (top, left) in enumerate(places):
        chosen = signs[:, torch.arange(channels) * 36 + number % 36]
        tile = shape * chosen.reshape(batch, channels, 1, 1)
        made[:, :, top : top + side, left : left + side] = tile
    return made


def _norm(values: Tensor) -> Tensor:
    """Of each sample and channel, (batch, channel, 1, 1)."""
    return (values**2).sum(dim=(2, 3), keepdim=True).sqrt()
