"""Any user's network, made by a function or class that can be imported or lies in a file."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, final

from torch import nn
from typing_extensions import override

from palpate.errors import TargetError
from palpate.targets.base import TargetSource


@final
@dataclass(frozen=True)
class Module(TargetSource):
    """The nn.Module that `factory(**arguments)` returns. The factory is your own code and is run.

    Attributes:
        factory: "package.module:function", or "path/to/file.py:function"; looked for in the audit
            file's folder, the working folder and wherever Python imports from.
        arguments: keyword arguments of the factory.
    """

    factory: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        place, _, name = self.factory.partition(":")
        if not place or not name:
            raise TargetError(f"factory: expected 'module:function', got {self.factory!r}")
        try:
            network = getattr(_imported(place), name)(**self.arguments)
        except Exception as error:
            kind = type(error).__name__
            raise TargetError(f"factory {self.factory!r}: {kind}: {error}") from error
        if not isinstance(network, nn.Module):
            raise TargetError(
                f"factory {self.factory!r}: expected an nn.Module, got {type(network).__name__}"
            )
        return network

    @override
    def default_label(self) -> str:
        return self.factory.partition(":")[2]


def _imported(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    roots = [Path(), *map(Path, sys.path)]
    path = next((root / place for root in roots if (root / place).is_file()), Path(place))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no such file {place}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
