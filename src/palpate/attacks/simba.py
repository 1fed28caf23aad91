"""SimBA: add or take away one basis vector after another, and keep what helps.

Guo, Gardner, You, Wilson, Weinberger, "Simple Black-box Adversarial Attacks", arXiv 1905.07121,
algorithm 1, with the two bases of sections 3.1 and 3.2.

| code | meaning | symbol | section |
|---|---|---|---|
| queries | most queries for each sample | B | 4 |
| _vectors | basis vectors, without repetition until all are used | Q | 3.1 |
| step_size | length of one step | ε | 3.1 |
| frequencies | share of the frequencies of each axis, the lowest ones | r | 3.2 |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import numpy as np
import torch
from scipy.fft import idct
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.attacks._climb import LossAttack, check_steps
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._loss import LossName
from palpate.attacks._projection import project, shaped, size
from palpate.errors import ConfigError
from palpate.perturbation import generators
from palpate.registry import Number
from palpate.types import Images


@final
@dataclass(frozen=True)
class Simba(LossAttack):
    """Try + q, then − q, for basis vectors q in random order.

    A sample whose score has reached 0 leaves at once: queries are what this attack costs.

    Attributes:
        queries: most queries for each sample.
        basis: "pixel" changes one value at a time, "dct" one low frequency of a channel.
        frequencies: share of the frequencies of each axis that "dct" draws from, 0 to 1.
        step_size: norm of one step, in units of the bounds; None for what did best on small
            networks at 400 queries: linf epsilon for a pixel and half of it for a frequency, l2 a
            tenth of it, so that the budget is soon spent and later steps turn the change.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    loss: LossName = field(default="margin", kw_only=True)
    queries: int = 5000
    basis: Literal["pixel", "dct"] = "pixel"
    frequencies: Number = 0.25
    step_size: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.queries, self.step_size)
        if not 0 < self.frequencies <= 1:
            raise ConfigError(f"frequencies: expected a share in (0, 1], got {self.frequencies}")

    @property
    @override
    def passes(self) -> float:
        return float(self.queries)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        images, rows, bounds = search.images, None, search.target.bounds
        loss = search.look(images).loss
        before, vectors = loss, _Vectors.of(self, images, seeds)
        tried = torch.zeros(len(images), dtype=torch.long, device=images.device)  # both signs count
        for _ in range(1, self.queries):
            here, turn = some(images, rows), some(tried, rows)
            step = vectors.at(turn // 2, rows) * self._length
            moved = here + torch.where(shaped(turn % 2 == 0, here), step, -step)
            clean = some(search.images, rows)
            moved = project(moved, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)
            found, old = search.look(moved, rows=rows).loss, some(loss, rows)
            search.feel(found != some(before, rows), rows)
            better = found > old
            images = put(images, rows, torch.where(shaped(better, here), moved, here))
            loss = put(loss, rows, torch.where(better, found, old))
            # a success ends this vector, as does the failure of its second sign
            tried = put(tried, rows, torch.where(better, (turn // 2 + 1) * 2, turn + 1))
            rows = search.standing(rows)
            if not len(rows):
                break
        return images

    @property
    def _length(self) -> float:
        if self.step_size is not None:
            return self.step_size
        if self.norm == "linf":
            return self.epsilon if self.basis == "pixel" else self.epsilon / 2
        return self.epsilon / 10


@dataclass(frozen=True)
class _Vectors:
    """Basis vectors of unit norm in each sample's own random order.

    Attributes:
        order: (batch, vectors) numbers of the vectors.
        axes: per axis of the image after the channels, (vectors of the axis, size).
        channels: of the image.
        norm: in which a vector has length 1.
    """

    order: Tensor
    axes: tuple[Tensor, ...]
    channels: int
    norm: str

    @classmethod
    def of(cls, attack: Simba, images: Images, seeds: Sequence[int]) -> "_Vectors":
        share = attack.frequencies if attack.basis == "dct" else 1.0
        axes = tuple(
            _cosines(size, share).to(images)
            if attack.basis == "dct"
            else torch.eye(size).to(images)
            for size in images.shape[2:]
        )
        channels = images.shape[1]
        count = channels * math.prod(len(axis) for axis in axes)
        most = min(count, attack.queries)  # no more can be reached
        orders = [torch.randperm(count, generator=g)[:most] for g in generators(seeds)]
        order = torch.stack(orders).to(images.device)
        return cls(order, axes, channels, attack.norm)

    def at(self, number: Tensor, rows: Rows | None) -> Images:
        """The vector of each sample after so many others; from the first again after the last."""
        order = some(self.order, rows)
        chosen = order.gather(1, (number % order.shape[1]).unsqueeze(1)).squeeze(1)
        made = torch.ones((len(chosen), 1), dtype=self.axes[0].dtype, device=chosen.device)
        for axis in reversed(self.axes):
            line = axis[chosen % len(axis)]
            chosen = chosen // len(axis)
            made = (line.unsqueeze(2) * made.unsqueeze(1)).flatten(1)
        shape = (-1, 1, *(axis.shape[1] for axis in self.axes))
        vector = made.reshape(shape)
        vector = vector / shaped(size(vector, self.norm), vector)
        one = functional.one_hot(chosen, self.channels).to(vector.dtype)
        return vector * one.reshape(len(one), self.channels, *(1 for _ in self.axes))


def _cosines(size: int, share: float) -> Tensor:
    """The lowest frequencies of the orthonormal cosine transform, (frequencies, size)."""
    kept = max(1, round(share * size))
    basis = np.asarray(idct(np.eye(size), axis=1, norm="ortho"))
    return torch.from_numpy(basis[:kept])
