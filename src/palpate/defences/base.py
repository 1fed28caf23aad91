"""Defence base: a target in, a protected target out.

A defence wraps the target before the perturbation, so every attack meets the defended model.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from palpate.targets.base import Target


@dataclass(frozen=True)
class Defence(ABC):
    """Base of all defences."""

    family: ClassVar[str] = "defences"
    version: ClassVar[int] = 1

    @abstractmethod
    def protect(self, target: Target) -> Target:
        """Return the protected target; the given one stays usable and unchanged."""
