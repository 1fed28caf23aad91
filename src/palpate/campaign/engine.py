"""What an engine is: it carries keys to workers and nothing else; the truth is the cell file."""

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, final

from palpate.campaign.crew import Crew
from palpate.campaign.hand import Errand, Hand
from palpate.campaign.inventory import inventory
from palpate.campaign.unit import Ended, Unit
from palpate.errors import ConfigError, UnknownComponent, nearest

RETRIES: Final = 2  # times that a unit is handed out again after its worker was lost

_PREFIX = "engine_"


class Engine(ABC):
    """Base of all engines; `campaign/engine_<name>.py` defines one subclass."""

    @abstractmethod
    def run(self, units: Sequence[Unit], hand: Hand, crew: Crew) -> Iterator[Ended]:
        """Run the units, in any order, and yield how each has ended; all exactly once.

        Args:
            units: what is to do.
            hand: of this process.
            crew: how many at once, and where.

        Raises:
            StoreError: a result could not be written, or workers cannot start.
            ConfigError: the engine cannot run so many, or knows no such option.
        """


@dataclass
class Losses:
    """Hands a unit out again after its worker was lost, twice, and then gives it up.

    Attributes:
        hand: of the process that hands out.
    """

    hand: Hand
    _counts: dict[str, int] = field(default_factory=dict)

    def after(self, unit: Unit, why: str, *, halve: bool = False) -> Unit | Ended:
        """What is to be done with a unit whose worker is known to be gone.

        Args:
            unit: which.
            why: how the worker ended.
            halve: whether its memory was too small, so that the batch is halved.
        """
        hand = self.hand
        hand.claims.drop(unit.name)
        hand.journal.note(unit.name, "worker lost", message=why)
        settled = hand.settled(unit)
        if settled is not None:
            return settled
        count = self._counts[unit.name] = self._counts.get(unit.name, 0) + 1
        if count > RETRIES:
            return hand.give_up(unit, f"{count} workers were lost on this cell; the last: {why}")
        size = unit.batch_size or hand.worker.audit.config.batch_size
        return replace(unit, batch_size=max(1, size // 2)) if halve else unit


def errand_of(hand: Hand, crew: Crew) -> Errand:
    """What other processes need.

    Raises:
        ConfigError: models or data were handed in from Python, so no other process has them.
    """
    audit = hand.worker.audit
    if not audit.again or audit.base is None:
        raise ConfigError(
            f"workers: expected an audit file to run with {crew.workers} processes, got models or"
            " data handed in from Python"
        )
    return Errand(
        config=audit.config.model_dump_json(),
        base=audit.base.resolve(),
        limit=audit.limit,
        folder=hand.worker.folder.resolve(),
        session=hand.claims.owner.session,
        inventory=inventory(),
        identity=hand.identity,
    )


def extra(module: str, name: str) -> None:
    """Refuse an engine whose library is not installed.

    Raises:
        ConfigError: names the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"engine {name}: expected the extra [{name}], got no module {module!r}; install it with"
            f" pip install 'palpate[{name}]'"
        )


@final
class Engines:
    """The engines that lie in this folder."""

    @staticmethod
    def names() -> list[str]:
        """Names, by directory listing."""
        modules = pkgutil.iter_modules([str(Path(__file__).parent)])
        return sorted(m.name.removeprefix(_PREFIX) for m in modules if m.name.startswith(_PREFIX))

    @staticmethod
    def load(name: str) -> Engine:
        """Make an engine.

        Raises:
            UnknownComponent: no such engine.
        """
        if name not in Engines.names():
            raise UnknownComponent(f"no engine named {name!r}; {nearest(name, Engines.names())}")
        module = importlib.import_module(f"palpate.campaign.{_PREFIX}{name}")
        found = [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, Engine) and c.__module__ == module.__name__
        ]
        return found[0]()
