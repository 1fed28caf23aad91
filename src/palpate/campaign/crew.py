"""Who runs the cells, and where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from palpate.errors import ConfigError, UnknownComponent, nearest

_MOST: Final = 4096


@dataclass(frozen=True)
class Crew:
    """Who runs the cells; no part of any key.

    Attributes:
        engine: name.
        workers: units that run at once.
        address: of a cluster; empty for this machine.
        gpus: per worker, a fraction where workers share one; 0 for the CPU.
        shards: into how many parts of the samples a cell is cut.
        options: of the engine.
    """

    engine: str = "local"
    workers: int = 1
    address: str = ""
    gpus: float = 0.0
    shards: int = 1
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= _MOST:
            raise ConfigError(f"workers: expected 1 to {_MOST}, got {self.workers}")
        if not 1 <= self.shards <= _MOST:
            raise ConfigError(f"shards: expected 1 to {_MOST}, got {self.shards}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ConfigError(f"gpus: expected a fraction or a whole number, got {self.gpus:g}")

    @classmethod
    def parsed(cls, options: Sequence[str], **fields: Any) -> "Crew":
        """From the command line, options as `a=b`.

        Raises:
            ConfigError: an option that is none, or a number out of range.
        """
        pairs = [option.partition("=") for option in options]
        for key, separator, value in pairs:
            if not separator:
                raise ConfigError(f"--option: expected name=value, got {key + value!r}")
        return cls(options={key: value for key, _, value in pairs}, **fields)

    def check_options(self, *known: str, address: bool = False) -> None:
        """Refuse what an engine does not know.

        Args:
            known: names of options.
            address: whether the engine has addresses.

        Raises:
            ConfigError: with the nearest names.
        """
        for name in self.options:
            if name not in known:
                offered = nearest(name, known)
                raise UnknownComponent(f"engine {self.engine}: no option {name!r}; {offered}")
        if self.address and not address:
            raise ConfigError(f"address: engine {self.engine} has none, got {self.address!r}")

    def whole(self, name: str, default: int) -> int:
        """An option that is a whole number from 1.

        Raises:
            ConfigError: it is not.
        """
        text = self.options.get(name, str(default))
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"option {name}: expected a whole number from 1, got {text!r}")
        return int(text)
