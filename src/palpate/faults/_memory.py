"""The stored memory of one target, asked one batch: enter a world in which some bits are others."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import numpy as np

from palpate.faults._bits import integers, position
from palpate.faults._replay import Replay
from palpate.faults._sites import FaultSite, Place, describe
from palpate.faults._splice import Splicer
from palpate.faults._storage import Flips, value
from palpate.outcome import Status
from palpate.perturbation import World
from palpate.targets.base import Target
from palpate.types import Batch

LISTED: Final = 64  # sites that the notes of a trial name; the others are only counted


class Memory:
    """Trials on one batch that share a golden pass."""

    def __init__(self, target: Target, batch: Batch) -> None:
        self._target = target
        self._batch = batch
        self._replay = Replay(target, batch)
        self._splicer = Splicer()

    @classmethod
    @contextmanager
    def prepared(cls, target: Target, batch: Batch) -> Generator[Self]:
        """Run the golden pass, and answer the golden question from memory between trials."""
        memory = cls(target, batch)
        with memory._replay.answering():
            yield memory

    @contextmanager
    def flipped(
        self,
        sites: Sequence[FaultSite],
        notes: dict[str, Any],
        *,
        drawn: Sequence[FaultSite] | None = None,
    ) -> Generator[World]:
        """Enter a world in which the bits of some sites are flipped.

        Args:
            sites: distinct bits to flip.
            notes: what else to say of the trial.
            drawn: sites to name in the notes, if others than those flipped (a bit that is stuck at
                the value that it has is drawn and not flipped).
        """
        listed = (sites if drawn is None else drawn)[:LISTED]
        before = [value(site.place, site.element) for site in listed]
        flips = Flips(sites)
        touched = [(place.name, place.tensor) for place in flips.places]
        replay = self._replay.reading(touched, self._splicer.change(flips))
        with flips.flipped(), replay:
            named = [
                describe(site, before=b, after=value(site.place, site.element))
                for site, b in zip(listed, before, strict=True)
            ]
            full = {**notes, "flips": len(sites), "sites": named}
            ok = (Status.OK,) * len(self._batch)
            yield World(self._target, self._batch, ok, notes=full)


def binomial(bits: int, rate: float, seed: int) -> int:
    """How many of so many bits an error rate upsets; more under the same seed at a higher rate."""
    from scipy.stats import binom  # slow to import, and seldom needed

    # a stream of its own, so that the places do not hang on how many there are
    chance = np.random.default_rng([seed, 1]).random()
    return int(binom.ppf(chance, bits, rate))


def unstuck(sites: Sequence[FaultSite], stuck_at: int) -> list[FaultSite]:
    """The sites whose stored bit is not what it is stuck at: only these change."""
    kept: list[FaultSite] = []
    for site in sites:
        stored = integers(site.place.codes)[position([site.element], site.place.codes)]
        if (int(stored.reshape(()).item()) >> site.bit) & 1 != stuck_at:
            kept.append(site)
    return kept


def burst(anchor: FaultSite, *, bits: int, words: int) -> list[FaultSite]:
    """Neighbours of one bit: `bits` adjacent ones, repeated in `words` adjacent words.

    The order is that of the stored tensor: row-major elements, bits upwards, on into the next
    word. What lies beyond the end of the tensor is left out.
    """
    place: Place = anchor.place
    width, count = place.format.width, place.codes.numel()
    found: list[FaultSite] = []
    for word in range(words):
        for step in range(bits):
            carried, bit = divmod(anchor.bit + step, width)
            element = anchor.element + word + carried
            if element < count:
                found.append(FaultSite(place, element, bit))
    return found


def distinct(sites: Sequence[FaultSite]) -> list[FaultSite]:
    """Every bit once, in the order of its first mention: two flips of one bit would cancel."""
    return list({(s.place.name, s.element, s.bit): s for s in sites}.values())
