"""Perturbations that were fitted on some samples, and are measured on others only.

Every sample belongs to a part of the data, by its case or its site; what it meets was fitted on
the samples of the other parts. So every sample is measured, with what never saw it.
"""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._gradient import Search
from palpate.attacks.base import Attack
from palpate.datasets.base import Samples
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
        felt: whether the search for it met a gradient; the target must answer the change as well.
        parts: who meets which; None where all meet the only one.
        told: what the search said of itself, for the record.
        rows: part of each sample of the batch that is entered.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

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
        images = (search.images + change).clamp(*search.target.bounds)
        before, after = search.look(search.images).loss, search.look(images).loss
        felt = torch.tensor([self.felt[p] for p in self.rows], device=change.device)
        search.feel(felt & (before != after), None)  # it may have been found on another target
        return images


def in_order(batch: Batch) -> Batch:
    """The same samples in an order that does not hang on that of the data."""
    return some_samples(batch, sorted(range(len(batch)), key=lambda i: batch.samples[i]))


def rest(batch: Batch, left_out: Sequence[int]) -> Batch:
    """All samples but some."""
    gone = set(left_out)
    return some_samples(batch, [i for i in range(len(batch)) if i not in gone])


def some_samples(batch: Batch, which: Sequence[int]) -> Batch:
    """Some samples of a batch, in this order."""
    prompts = batch.prompts
    return Batch(
        images=batch.images[list(which)],
        references=batch.references[list(which)],
        samples=tuple(batch.samples[i] for i in which),
        cases=tuple(batch.cases[i] for i in which),
        sites=tuple(batch.sites[i] for i in which),
        prompts=None if prompts is None else tuple(prompts[i] for i in which),
        wordings={kind: tuple(t[i] for i in which) for kind, t in batch.wordings.items()},
    )


def check_apart(data: Samples, fitted_on: Batch, measured: Batch, target: Target) -> None:
    """Refuse to fit on data of another kind, or on images that are measured.

    Raises:
        DataError: says which.
    """
    for what, expected, got in (
        ("task", target.task, data.task),
        ("bounds", tuple(target.bounds), tuple(data.bounds)),
        ("image shape", tuple(measured.images.shape[1:]), tuple(fitted_on.images.shape[1:])),
    ):
        if expected != got:
            raise DataError(f"fit_on: expected the audit's {what} {expected}, got {got}")
    check_unseen(fitted_on, [measured])


def check_unseen(fitted_on: Batch, measured: Iterable[Batch]) -> None:
    """Refuse to measure on images that something was fitted on.

    Raises:
        DataError: how many of them there are, and the first.
    """
    seen = set(_fingerprints(fitted_on))
    both = [
        name
        for batch in measured
        for name, pixels in zip(batch.samples, _fingerprints(batch), strict=True)
        if pixels in seen
    ]
    if both:
        raise DataError(
            f"fit_on: expected other images than those that are measured, got {len(both)} of these"
            f" among the {len(fitted_on)} fitted on, first {both[0]!r}"
        )


def _fingerprints(batch: Batch) -> list[bytes]:
    """One hash per image, of its pixels."""
    return [hashlib.sha256(image.numpy().tobytes()).digest() for image in batch.images.cpu()]


def _drawn(unit: str) -> bytes:
    return hashlib.sha256(unit.encode()).digest()
