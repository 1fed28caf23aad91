"""Missing information: base and one file per occlusion."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("occlusions", name)
