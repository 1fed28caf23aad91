"""Where models come from: base and one file per model source."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("targets", name)
