"""Masks that are read when they are needed: a sequence that stands in for an array."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from numpy.typing import NDArray


@dataclass(frozen=True)
class Masks:
    """One label map (height, width) or set of 0/1 planes (classes, height, width) per sample.

    Attributes:
        read: indices -> (n, ...), integers.
        count: number of samples.
    """

    read: Callable[[Sequence[int]], NDArray[Any]]
    count: int

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: slice) -> "Masks": ...
    @overload
    def __getitem__(self, index: list[int]) -> NDArray[Any]: ...
    def __getitem__(self, index: slice | list[int]) -> "Masks | NDArray[Any]":
        """Masks of a list of samples, or the first samples unread."""
        if isinstance(index, list):
            return self.read(index)
        start, stop, step = index.indices(self.count)
        if (start, step) != (0, 1):
            raise IndexError(f"expected the first masks or a list, got {index}")
        return Masks(self.read, stop)
