"""What an engine is: it carries keys to workers and nothing else; the truth is the cell file."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from palpate.campaign.plan import Cell
from palpate.campaign.worker import Worker
from palpate.errors import UnknownComponent, nearest
from palpate.record import CellRecord

_PREFIX = "engine_"


@dataclass(frozen=True)
class Finished:
    """A cell that has just ended.

    Attributes:
        cell: which.
        record: what was written.
        seconds: how long it took.
    """

    cell: Cell
    record: CellRecord
    seconds: float


class Engine(ABC):
    """Base of all engines; `campaign/engine_<name>.py` defines one subclass."""

    @abstractmethod
    def run(self, cells: Sequence[Cell], worker: Worker, *, workers: int = 1) -> Iterator[Finished]:
        """Run the cells, in any order, and yield each as it ends.

        Args:
            cells: what is to do.
            worker: runs one cell.
            workers: how many at once.

        Raises:
            StoreError: a result could not be written, or a worker was lost.
            ConfigError: the engine cannot run so many.
        """


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
