"""Inputs chosen by an adversary: base, shared steps and one file per attack."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("attacks", name)
