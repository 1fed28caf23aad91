"""Samples paired with a class that they are led to, several classes of one sample in one batch.

A sample's classes come one after another, and none counts that comes after the first that breaks
it. Whoever is asked beside it, a sample ends as if its classes had been tried one by one; what is
gained is a full batch where few samples are left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from palpate.attacks._course import Course
from palpate.attacks._gradient import Rows, Search
from palpate.types import Flags

Leaving = Callable[[], Flags]
"""Which samples of a search leave it now."""

Done = Callable[[Search], Flags]
"""Which samples of a search have all that is wanted of them."""


@dataclass(frozen=True)
class Pairs:
    """Some pairs that are asked together, no class of a sample before an earlier one.

    Attributes:
        samples: indices in the search among samples, (pairs,).
        numbers: which of its sample's classes each is, from 0, (pairs,).
        among: how many samples the search has.
        several: whether a sample comes twice.
    """

    samples: Rows
    numbers: Tensor
    among: int
    several: bool

    def late(self, broken: Flags) -> Flags:
        """Pairs whose sample is broken by an earlier class; they do not count.

        Args:
            broken: whether each pair has broken its sample.
        """
        if not self.several:
            return torch.zeros_like(broken)
        never = torch.iinfo(self.numbers.dtype).max
        first = self.numbers.new_full((self.among,), never)
        number = torch.where(broken, self.numbers, never)
        first = first.scatter_reduce(0, self.samples, number, "amin")
        return self.numbers > first[self.samples]

    def leaving(self, part: Search, done: Done, *, at_once: bool) -> Leaving | None:
        """Which pairs leave the search among them; None where none does.

        Args:
            part: among these pairs.
            done: of the pairs.
            at_once: a pair that is done leaves too, not only those that it makes late.
        """
        if not at_once and not self.several:
            return None

        def leaving() -> Flags:
            gone = done(part)
            return gone | self.late(gone) if at_once else self.late(gone)

        return leaving

    def in_turn(self, counting: Flags) -> list[Rows]:
        """Indices of the pairs that count, class by class."""
        numbers = self.numbers.unique().tolist()
        each = (torch.nonzero(counting & (self.numbers == n)).flatten() for n in numbers)
        return [chosen for chosen in each if len(chosen)]

    def settle(self, search: Search, part: Search, done: Done) -> list[Rows]:
        """Hand to the search among samples what the one among pairs has found; pairs as `in_turn`.

        Args:
            search: among samples.
            part: among these pairs.
            done: of the pairs.
        """
        part.standing()  # a search in bfloat16 confirms what it has found
        turns = self.in_turn(~self.late(done(part)))
        for chosen in turns:
            search.join(_only(part, chosen), self.samples[chosen])
        search.passes += part.passes
        return turns


def packed(search: Search, most: int, *, room: int, done: Done) -> Iterator[Pairs]:
    """Pairs of the samples that are not done, which is asked again before each batch of them.

    Args:
        search: among samples; `settle` each batch before the next.
        most: classes of each sample.
        room: most pairs in a batch.
        done: of the samples.
    """
    rows = torch.nonzero(~done(search)).flatten()
    samples = rows.repeat(most)
    numbers = torch.arange(most, device=rows.device).repeat_interleave(len(rows))
    while len(samples):
        several = bool(numbers[0] != numbers[:room][-1])
        yield Pairs(samples[:room], numbers[:room], len(search.images), several)
        samples, numbers = samples[room:], numbers[room:]
        left = ~done(search)[samples]
        samples, numbers = samples[left], numbers[left]


def broken(search: Search) -> Flags:
    """Samples whose score is 0."""
    return search.score <= 0


def staying(rows: Rows | None, stay: Flags) -> Rows:
    """Indices of those among `rows` (None for all) that stay."""
    return torch.nonzero(stay).flatten() if rows is None else rows[stay]


def _only(part: Search, chosen: Rows) -> Search:
    """What a search has found among some of its samples; its passes are not counted again."""
    made = part.part(chosen)
    made.best, made.score, made.loss = part.best[chosen], part.score[chosen], part.loss[chosen]
    made.distance, made.felt = part.distance[chosen], part.felt[chosen]
    course = part.course
    peaks, asked = ([each[chosen] for each in said] for said in (course.peaks, course.asked))
    made.course = Course(course.first[chosen], peaks, asked)
    return made
