"""How the loss went during a search: what shows later that an attack did its work, or did not.

Pintor et al., "Indicators of Attack Failure", arXiv 2106.09947, section 3 (incomplete optimisation
is read off the best loss so far).
"""

import math
from dataclasses import dataclass, field
from typing import Final

import torch

from palpate.types import PerSample

_LATE: Final = 0.75  # share of the asks after which a rise counts as late
_FEW: Final = 4  # asks below which there is no late part
_MOST: Final = 1e30  # what an infinite loss counts as


@dataclass
class Course:
    """The highest loss so far, per sample, after every ask; local to one search.

    Attributes:
        first: loss at the first point asked; NaN before.
        peaks: highest loss so far after each ask.
    """

    first: PerSample
    peaks: list[PerSample] = field(default_factory=list)

    @classmethod
    def of(cls, like: PerSample) -> "Course":
        """A course that has not begun."""
        return cls(torch.full_like(like, torch.nan))

    def note(self, loss: PerSample, rows: torch.Tensor | None) -> None:
        """Take one ask's losses, of all samples or of those in `rows`."""
        loss = loss.to(self.first.dtype).clamp(max=_MOST)
        if rows is None:
            everything = loss
        else:
            everything = torch.full_like(self.first, torch.nan).index_copy(0, rows, loss)
        self.first = torch.where(self.first.isnan(), everything, self.first)
        peak = self.peaks[-1] if self.peaks else torch.full_like(self.first, -torch.inf)
        self.peaks.append(torch.fmax(peak, everything))

    def join(self, part: "Course", rows: torch.Tensor) -> None:
        """Go on with the course of some of the samples."""
        if not part.peaks:
            return
        self.note(part.first, rows)
        for peak in part.peaks:
            self.note(peak, rows)

    def rise(self) -> list[float]:
        """By how much the highest loss exceeds the first; NaN where nothing was asked."""
        if not self.peaks:
            return [float("nan")] * len(self.first)
        return (self.peaks[-1] - self.first).tolist()

    def late(self) -> list[float]:
        """Share of the rise that came in the last quarter of the asks; NaN for a few asks only."""
        if len(self.peaks) < _FEW:
            return [float("nan")] * len(self.first)
        end, before = self.peaks[-1], self.peaks[math.ceil(_LATE * len(self.peaks)) - 1]
        rise = end - self.first
        return torch.where(rise > 0, (end - before) / rise, torch.zeros_like(rise)).tolist()
