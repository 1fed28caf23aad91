"""Target in, protected target out: base and one file per defence."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("defences", name)
