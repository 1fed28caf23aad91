"""Bits that flip in memory: base, bit views, sites, replay and one file per fault model."""

from typing import Any

from palpate import registry


def __getattr__(name: str) -> Any:
    return registry.attribute("faults", name)
