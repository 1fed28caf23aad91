"""How the loss went during a search: what shows later that an attack did its work, or did not.

Pintor et al., "Indicators of Attack Failure", arXiv 2106.09947, section 3 (incomplete optimisation
is read off the best loss so far).
"""

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from palpate.types import Flags, PerSample

_LATE: Final = 0.75  # share of the asks after which a rise counts as late
_FEW: Final = 4  # asks below which there is no late part
_MOST: Final = 1e30  # what an infinite loss counts as


@dataclass
class Course:
    """The highest loss so far, per sample, after every ask; local to one search.

    A sample that has left the batch is asked no more, and what others are asked then is no part of
    its course.

    Attributes:
        first: loss at the first point asked; NaN before.
        peaks: highest loss so far after each ask.
        asked: who took part in each ask.
    """

    first: PerSample
    peaks: list[PerSample] = field(default_factory=list)
    asked: list[Flags] = field(default_factory=list)

    @classmethod
    def of(cls, like: PerSample) -> "Course":
        """A course that has not begun."""
        return cls(torch.full_like(like, torch.nan))

    def note(self, loss: PerSample, rows: Tensor | None) -> None:
        """Take one ask's losses, of all samples or of those in `rows`; NaN for those not asked."""
        loss = loss.to(self.first.dtype).clamp(max=_MOST)
        if rows is not None:
            loss = torch.full_like(self.first, torch.nan).index_copy(0, rows, loss)
        self.first = torch.where(self.first.isnan(), loss, self.first)
        peak = self.peaks[-1] if self.peaks else torch.full_like(self.first, -torch.inf)
        self.peaks.append(torch.fmax(peak, loss))
        self.asked.append(~loss.isnan())

    def gathered(self, copies: int) -> "Course":
        """The course of the samples where each has so many rows, one after the other."""
        peaks = [peak.reshape(-1, copies).amax(dim=1) for peak in self.peaks]
        return Course(self.first[::copies], peaks, [asked[::copies] for asked in self.asked])

    def join(self, part: "Course", rows: Tensor | None) -> None:
        """Go on with the course of some of the samples; of all for None."""
        for peak, asked in zip(part.peaks, part.asked, strict=True):
            self.note(torch.where(asked, peak, torch.nan), rows)

    def rise(self) -> list[float]:
        """By how much the highest loss exceeds the first; NaN where nothing was asked."""
        if not self.peaks:
            return [float("nan")] * len(self.first)
        return (self.peaks[-1] - self.first).tolist()

    def late(self) -> list[float]:
        """Share of the rise in the last quarter of a sample's asks; NaN for a few asks only."""
        if not self.peaks:
            return [float("nan")] * len(self.first)
        peaks, done = torch.stack(self.peaks), torch.stack(self.asked).cumsum(dim=0)
        count = done[-1]
        mark = (done < torch.ceil(_LATE * count)).sum(dim=0, keepdim=True)
        end, before = peaks[-1], peaks.gather(0, mark)[0]
        rise = end - self.first
        late = torch.where(rise > 0, (end - before) / rise, torch.zeros_like(rise))
        return torch.where(count < _FEW, torch.nan, late).tolist()
