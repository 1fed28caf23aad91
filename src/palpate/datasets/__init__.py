"""Where samples come from: base and one file per kind of dataset."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("datasets", name)
