"""Artefacts of acquisition: base and one file per corruption."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("corruptions", name)
