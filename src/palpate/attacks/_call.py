"""What an attack is called with, and what it has found; both for a batch or for parts of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from palpate.attacks._gradient import Search
from palpate.outcome import Status, Trace
from palpate.perturbation import Carry
from palpate.targets.base import Target
from palpate.types import Images, References


class Given(NamedTuple):
    """What an attack is called with.

    Attributes:
        target: the model.
        images: (batch, channel, *spatial), within the target's bounds.
        references: as in `Batch.references`.
        prompts: one text per image for prompted tasks.
        seeds: one per image.
    """

    target: Target
    images: Images
    references: References
    prompts: Sequence[str] | None
    seeds: Sequence[int]

    @classmethod
    def of(
        cls,
        target: Target,
        images: Images,
        references: References,
        *,
        prompts: Sequence[str] | None,
        seeds: Sequence[int] | None,
    ) -> "Given":
        """With the position as seed where none are given."""
        own = list(range(len(images))) if seeds is None else seeds
        return cls(target, images, references, prompts, own)

    def some(self, rows: slice) -> "Given":
        """Some of the samples, with their own seeds."""
        prompts = None if self.prompts is None else self.prompts[rows]
        images, references = self.images[rows], self.references[rows]
        return Given(self.target, images, references, prompts, self.seeds[rows])


class Found(NamedTuple):
    """Result of one attack.

    Attributes:
        images: best iterates, as the audit scores them.
        last: last iterates, as most libraries return them.
        status: per sample, whether there was a gradient and the input moved.
        passes: forward passes spent, in samples.
        carry: takes masks to where the best iterates have moved the pixels; None where they stay.
        traces: per sample, what the search says of itself; empty where nothing was searched.
    """

    images: Images
    last: Images
    status: tuple[Status, ...]
    passes: int
    carry: Carry | None = None
    traces: tuple[Trace, ...] = ()

    @classmethod
    def of(cls, search: Search, best: Images, last: Images, carry: Carry | None) -> "Found":
        """What a search that has ended says."""
        moved = (last != search.images).flatten(1).any(dim=1)
        felt = zip(search.felt.tolist(), moved.tolist(), strict=True)
        status = tuple(_status(*pair) for pair in felt)
        return cls(best, last, status, search.passes, carry, _traces(search, best))

    @classmethod
    def joined(cls, parts: "Sequence[Found]") -> "Found":
        """One result for consecutive parts of a batch."""
        if len(parts) == 1:
            return parts[0]
        carries = [part.carry for part in parts if part.carry is not None]
        sizes = [len(part.images) for part in parts]

        def carry(masks: References) -> References:
            each = zip(carries, masks.split(sizes), strict=True)
            return torch.cat([carried(some) for carried, some in each])

        return cls(
            torch.cat([part.images for part in parts]),
            torch.cat([part.last for part in parts]),
            tuple(status for part in parts for status in part.status),
            sum(part.passes for part in parts),
            carry if carries else None,
            tuple(trace for part in parts for trace in part.traces),
        )


def _traces(search: Search, best: Images) -> tuple[Trace, ...]:
    """The score that the search claims for what it returns, and how its loss went."""
    same = (best == search.best).flatten(1).all(dim=1) & search.score.isfinite()
    claimed = torch.where(same, search.score, torch.nan).tolist()
    return tuple(map(Trace, claimed, search.course.rise(), search.course.late()))


def _status(felt: bool, moved: bool) -> Status:  # noqa: FBT001 - two flags of one sample
    if not felt:
        return Status.NO_GRADIENT
    return Status.OK if moved else Status.NO_MOVE
