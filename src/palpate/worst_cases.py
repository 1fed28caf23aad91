"""Keeps the worst cases of a cell as images for the report, masks included, and one case to follow.

The worst cases of two doses are seldom the same samples. The followed one is chosen by its name, so
that every cell of a model shows the same and a report can lay them side by side.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palpate.outcome import FOLLOWED, Outcome

_RIGHT: Final = 0.5  # score on the clean image from which there is something to lose

Rank = tuple[bool, bytes, int]


def badness(score: float, probabilities: Iterable[float], *, finite: bool) -> float:
    """How wrong an answer is, and how sure of it: the larger, the worse."""
    return 1.0 - score + (max(probabilities, default=0.0) if finite else 1.0)


class Pictures(NamedTuple):
    """What the report shows of one case.

    Attributes:
        clean: undisturbed image (channel, *spatial).
        perturbed: the image that was judged.
        masks: reference, decision on the clean image, decision on the perturbed one, and the
            reference where the disturbance has moved the pixels (else as it is), each (*spatial)
            or (classes, *spatial); empty for labels.
    """

    clean: Tensor
    perturbed: Tensor
    masks: tuple[Tensor, ...] = ()


def rank_of(sample: str, trial: int, *, right: bool) -> Rank:
    """Which sample is followed: the least, one that is right when clean before any other."""
    return not right, hashlib.sha256(sample.encode()).digest(), trial


@dataclass
class WorstCases:
    """Right when clean, wrong now, most confidently wrong first; and the sample that is followed.

    Attributes:
        limit: how many to keep; with 0 no picture is kept at all.
    """

    limit: int
    _heap: list[tuple[float, str, int, Pictures]] = field(default_factory=list)
    _followed: tuple[Rank, str, Pictures] | None = None

    def offer(self, outcome: Outcome, score: float, pictures: Callable[[], Pictures]) -> None:
        """Keep this case if it is among the worst, or the one that is followed.

        Args:
            outcome: what came of it.
            score: on the clean image.
            pictures: makes them when they are kept.
        """
        if not self.limit:
            return
        rank = rank_of(outcome.sample, outcome.trial, right=score >= _RIGHT)
        if self._followed is None or rank < self._followed[0]:
            self._followed = (rank, outcome.sample, pictures())
        if not outcome.score < score:
            return
        place = (
            badness(outcome.score, outcome.probabilities, finite=outcome.finite),
            outcome.sample,
            outcome.trial,
        )
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, (*place, pictures()))
        elif place > self._heap[0][:3]:
            heapq.heapreplace(self._heap, (*place, pictures()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The cases as arrays, the worst first; empty where nothing was offered.

        `sample`, `trial`, `clean`, `perturbed`, and for masks `reference_mask`, `clean_mask`,
        `perturbed_mask` and `moved_mask`, where there are worst cases. The same of the followed
        sample, and whether it is right when clean, under names that begin with `followed_`.
        """
        worst = sorted(self._heap, key=lambda entry: entry[:3], reverse=True)
        found = _arrays([entry[1:] for entry in worst])
        if self._followed is not None:
            (wrong, _, trial), sample, pictures = self._followed
            own = {"right": np.array([not wrong]), **_arrays([(sample, trial, pictures)])}
            found |= {FOLLOWED + name: array for name, array in own.items()}
        return found


def _arrays(cases: list[tuple[str, int, Pictures]]) -> dict[str, NDArray[Any]]:
    if not cases:
        return {}
    samples, trials, pictures = zip(*cases, strict=True)
    found: dict[str, NDArray[Any]] = {
        "sample": np.array(samples),
        "trial": np.array(trials),
        "clean": torch.stack([p.clean for p in pictures]).numpy(),
        "perturbed": torch.stack([p.perturbed for p in pictures]).numpy(),
    }
    if pictures[0].masks:
        names = ("reference_mask", "clean_mask", "perturbed_mask", "moved_mask")
        for name, masks in zip(names, zip(*(p.masks for p in pictures), strict=True), strict=True):
            found[name] = torch.stack(masks).to(torch.uint8).numpy()
    return found
