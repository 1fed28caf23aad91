"""Numbers over outcomes: base and one file per metric."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("metrics", name)
