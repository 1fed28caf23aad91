"""Flips that a search has chosen, to be entered on any batch."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, final

from palpate.faults._memory import Memory
from palpate.faults._sites import FaultSite, places
from palpate.faults._storage import StorageFormat, deployed, stored_all
from palpate.faults.base import Fault
from palpate.perturbation import Enter, World
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch


class Chosen(NamedTuple):
    """The flips of one world.

    Attributes:
        sites: tensor name, flat element number and bit of each.
        stratum: what they were chosen from.
        damage: silent damage on the batch of the search.
    """

    sites: tuple[tuple[str, int, int], ...]
    stratum: str
    damage: float


@final
@dataclass(frozen=True)
class ChosenFlips(Fault):
    """World k holds the k-th choice; the last one goes on where there are fewer than trials.

    Attributes:
        worlds: choices.
        scope: what they were chosen among, for the notes.
        format: what the memory holds.
    """

    worlds: tuple[Chosen, ...] = (Chosen((), "model", 0.0),)
    scope: str = "model"
    format: StorageFormat = "stored"

    def _check(self, target: Target) -> None:
        places(target.module)

    @contextmanager
    def _ready(self, target: Target, batch: Batch) -> Generator[Enter]:
        found = stored_all(places(target.module), self.format)
        by_name = {place.name: place for place in found}
        with deployed(found), Memory.prepared(target, batch) as memory:

            @contextmanager
            def enter(seeds: Seeds) -> Generator[World]:
                choice = self.worlds[min(seeds.trial, len(self.worlds) - 1)]
                sites = [FaultSite(by_name[name], *where) for name, *where in choice.sites]
                notes = {
                    "scope": self.scope,
                    "stratum": choice.stratum,
                    "share": 1.0,
                    "damage": choice.damage,
                }
                with memory.flipped(sites, notes) as world:
                    yield world

            yield enter
