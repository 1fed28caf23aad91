"""Palpate presses on medical-imaging models until it hurts, and reports where and how much.

Nothing heavy is imported here: the public names load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpate.api import audit, load_dataset, wrap
    from palpate.datasets.base import Samples
    from palpate.run import Run
    from palpate.types import Classification, MultiLabel, PromptedSegmentation, Segmentation

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "MultiLabel",
    "PromptedSegmentation",
    "Run",
    "Samples",
    "Segmentation",
    "audit",
    "load_dataset",
    "wrap",
]

_PLACES = {
    "palpate.api": ("audit", "load_dataset", "wrap"),
    "palpate.datasets.base": ("Samples",),
    "palpate.run": ("Run",),
    "palpate.types": ("Classification", "MultiLabel", "PromptedSegmentation", "Segmentation"),
}
_FAMILIES = ("attacks", "corruptions", "occlusions", "faults", "defences", "datasets", "targets")
_SUBMODULES = (*_FAMILIES, "metrics", "models", "scan")


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(place), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"palpate.{name}")
    raise AttributeError(f"module 'palpate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES, "__version__"})
