"""Faults whose trials are dealt to strata: in turn, or where most is unknown until it is known.

The sequential way starts with a few trials of every stratum, then deals each further round by
Neyman's rule (`palpate.sampling`), and stops when the interval of the SDC rate is as narrow as
asked. Which trials come depends on the outcomes on all samples, so on nothing that a batch size or
an engine decides. Within a stratum the trials are distinct faults.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, final

from typing_extensions import override

from palpate.errors import ConfigError
from palpate.faults._sites import FaultSite, Stratum, distinct_below, population
from palpate.faults.base import Fault
from palpate.outcome import Outcome, Verdict
from palpate.perturbation import Enter, Perturbation, World
from palpate.registry import Number
from palpate.sampling import Tally, further
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch

_FIRST: Final = 16  # trials that every stratum gets first


class Dealing(NamedTuple):
    """What the trials on one batch share.

    Attributes:
        strata: all of the population.
        enter: the world in which some bits of one stratum are upset, with a word on what it is.
    """

    strata: list[Stratum]
    enter: Callable[[list[FaultSite], dict[str, Any]], AbstractContextManager[World]]


@dataclass(frozen=True)
class DealtFault(Fault):
    """Base of fault models that draw from strata.

    Attributes:
        margin: if more than 0, trials go on until the 95 % interval of the SDC rate over the whole
            population, for the images tested, has this half-width; `trials` is then the most.
            Best with a `scope` of several strata, such as `field`.
    """

    scope: str = "model"
    margin: Number = field(default=0.0, kw_only=True)

    @abstractmethod
    def _dealing(self, target: Target, batch: Batch) -> AbstractContextManager[Dealing]:
        """Run the golden pass, and say what there is to draw from."""

    def _drawn(self, stratum: Stratum, seed: int) -> list[FaultSite]:
        """Upsets of one trial."""
        return stratum.draw(1, seed)

    @override
    def fitted(self, target: Target, batch: Batch) -> Perturbation:
        if not self.margin:
            return self
        with self._dealing(target, batch) as dealing:
            sizes = [stratum.size for stratum in dealing.strata]
        firsts = self._firsts(sizes)
        tallies = tuple(Tally(size) for size in sizes)
        return Sequential(trials=self.trials, base=self, tallies=tallies, dealt=tuple(firsts))

    @contextmanager
    def _ready(self, target: Target, batch: Batch) -> Generator[Enter]:
        with self._dealing(target, batch) as (strata, enter):

            def entered(seeds: Seeds) -> AbstractContextManager[World]:
                stratum = strata[seeds.trial % len(strata)]
                notes = self._notes(stratum, strata, trial=seeds.trial)
                return enter(self._drawn(stratum, seeds.shared()), notes)

            yield entered

    def _notes(self, stratum: Stratum, strata: Sequence[Stratum], *, trial: int) -> dict[str, Any]:
        """What to say of a trial; the first one also says what all are drawn from."""
        notes = {"scope": self.scope, "stratum": stratum.name, "share": stratum.share}
        return notes if trial else {**notes, "population": population(strata)}

    def _firsts(self, sizes: Sequence[int]) -> list[int]:
        """Strata of the trials of the first round of a campaign with a margin."""
        firsts = [number for number, size in enumerate(sizes) for _ in range(min(_FIRST, size))]
        if self.margin and len(firsts) > self.trials:
            raise ConfigError(
                f"{self!r}: expected at least {len(firsts)} trials, {_FIRST} for each of"
                f" {len(sizes)} strata, got {self.trials}"
            )
        return firsts

    def _check_margin(self, *, single: bool = True) -> None:
        if not 0 <= self.margin < 1:
            raise ConfigError(f"{self!r}: expected margin in [0, 1), got {self.margin}")
        if self.margin and not single:
            raise ConfigError(f"{self!r}: expected single flips with a margin, got several")


@final
@dataclass(frozen=True)
class Sequential(Fault):
    """Rounds of trials of one fault model.

    Attributes:
        base: the fault model.
        tallies: what the finished rounds gave, per stratum.
        dealt: stratum of every trial so far planned.
        done: trials that have run.
    """

    base: DealtFault
    tallies: tuple[Tally, ...]
    dealt: tuple[int, ...]
    done: int = 0

    @property
    @override
    def first(self) -> int:
        return self.done

    @property
    @override
    def repeats(self) -> int:
        return len(self.dealt)

    @override
    def seeds(self, campaign: int) -> Seeds:
        return self.base.seeds(campaign)

    @override
    def continued(self, outcomes: Sequence[Outcome]) -> "Sequential | None":
        hits, rows = Counter[int](), Counter[int]()
        for outcome in outcomes:
            rows[outcome.trial] += 1
            hits[outcome.trial] += outcome.verdict is Verdict.SDC
        tallies = list(self.tallies)
        for trial in range(self.done, len(self.dealt)):
            number = self.dealt[trial]
            tallies[number] = tallies[number].plus([hits[trial] / rows[trial]])
        more = further(tallies, margin=self.base.margin, most=self.trials - len(self.dealt))
        planned = [number for number, count in enumerate(more) for _ in range(count)]
        if not planned:
            return None
        return replace(
            self,
            tallies=tuple(tallies),
            dealt=(*self.dealt, *planned),
            done=len(self.dealt),
        )

    @override
    def _check(self, target: Target) -> None:
        self.base._check(target)

    @contextmanager
    def _ready(self, target: Target, batch: Batch) -> Generator[Enter]:
        with self.base._dealing(target, batch) as (strata, enter):
            addresses: dict[int, list[int]] = {}
            counts, turns = Counter[int](), list[int]()
            for number in self.dealt:
                turns.append(counts[number])
                counts[number] += 1

            def entered(seeds: Seeds) -> AbstractContextManager[World]:
                number = self.dealt[seeds.trial]
                stratum = strata[number]
                if number not in addresses:
                    stream = [seeds.at(0).shared(), number]
                    drawn = distinct_below(stratum.size, counts[number], stream)
                    addresses[number] = drawn.tolist()
                sites = stratum.at([addresses[number][turns[seeds.trial]]])
                return enter(sites, self.base._notes(stratum, strata, trial=seeds.trial))

            yield entered
