"""Perturbations that were fitted on some samples, and are measured on others only.

Every sample belongs to a part of the data, by its case or its site; what it meets was fitted on
the samples of the other parts. So every sample is measured, with what never saw it.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._gradient import Search
from palpate.attacks.base import Attack
from palpate.errors import DataError
from palpate.perturbation import Enter, World
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Images

Apart = Literal["case", "site"]
_HALVES = ("first half", "second half")


@dataclass(frozen=True)
class Parts:
    """Which part of the data a sample belongs to.

    Attributes:
        apart: what is never divided: the cases are dealt to two halves, a site is a part itself.
        known: part of every case or site that was seen when the parts were made.
    """

    apart: Apart
    known: Mapping[str, str]

    @classmethod
    def of(cls, batch: Batch, apart: Apart) -> "Parts":
        """Deal the cases of some samples to two halves of equal size, or take their sites.

        Raises:
            DataError: fewer than two cases or sites.
        """
        units = sorted(set(batch.cases if apart == "case" else batch.sites), key=_drawn)
        if len(units) < 2:
            raise DataError(
                f"universal: expected samples of two or more {apart}s, to fit on some and measure"
                f" on the others, got {len(units)} ({', '.join(map(repr, units))})"
            )
        if apart == "site":
            return cls(apart, {unit: unit for unit in units})
        return cls(apart, {unit: _HALVES[i % 2] for i, unit in enumerate(units)})

    @property
    def names(self) -> tuple[str, ...]:
        """All parts."""
        return tuple(sorted(set(self.known.values())))

    def part(self, batch: Batch) -> tuple[str, ...]:
        """Part of each sample; a case or site that was never seen may be of any."""
        units = batch.cases if self.apart == "case" else batch.sites
        return tuple(self.known.get(u) or self.names[_drawn(u)[0] % 2] for u in units)


@final
@dataclass(frozen=True)
class FittedChange(Attack):
    """x + δ, clipped to the bounds, with a δ for each part of the data; nothing is searched.

    Attributes:
        changes: perturbation (channel, *spatial) that each part meets.
        felt: whether the search for it met a gradient.
        parts: who meets which; None where all meet the only one.
        told: what the search said of itself, for the record.
        rows: part of each sample of the batch that is entered.
    """

    changes: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    felt: Mapping[str, bool] = field(default_factory=dict[str, bool])
    parts: Parts | None = None
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: tuple[str, ...] = ()

    @override
    def prepared(self, target: Target, batch: Batch) -> AbstractContextManager[Enter]:
        only = next(iter(self.changes))
        rows = (only,) * len(batch) if self.parts is None else self.parts.part(batch)
        ready = replace(self, rows=rows)

        @contextmanager
        def enter(seeds: Seeds) -> Generator[World]:
            with ready.applied(target, batch, seeds=seeds) as world:
                yield world._replace(notes=dict(self.told))

        return nullcontext(enter)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        change = torch.stack([self.changes[part] for part in self.rows]).to(search.images)
        search.feel(torch.tensor([self.felt[p] for p in self.rows], device=change.device), None)
        images = (search.images + change).clamp(*search.target.bounds)
        search.best = images
        return images


def _drawn(unit: str) -> bytes:
    return hashlib.sha256(unit.encode()).digest()
