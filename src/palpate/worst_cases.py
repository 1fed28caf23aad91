"""Keeps the worst cases of a cell as images for the report, masks included."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palpate.outcome import Outcome


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


@dataclass
class WorstCases:
    """Right when clean, wrong now, most confidently wrong first.

    Attributes:
        limit: how many to keep.
    """

    limit: int
    _heap: list[tuple[float, str, int, Pictures]] = field(default_factory=list)

    def offer(self, outcome: Outcome, pictures: Pictures) -> None:
        """Keep this case if it is among the worst."""
        bad = badness(outcome.score, outcome.probabilities, finite=outcome.finite)
        entry = (bad, outcome.sample, outcome.trial, pictures)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        elif self.limit and entry[:3] > self._heap[0][:3]:
            heapq.heapreplace(self._heap, entry)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The cases as arrays, the worst first; empty without a case.

        `sample`, `trial`, `clean`, `perturbed`; for masks `reference_mask`, `clean_mask`,
        `perturbed_mask` and `moved_mask` too.
        """
        worst = sorted(self._heap, key=lambda entry: entry[:3], reverse=True)
        if not worst:
            return {}
        pictures = [entry[3] for entry in worst]
        found: dict[str, NDArray[Any]] = {
            "sample": np.array([entry[1] for entry in worst]),
            "trial": np.array([entry[2] for entry in worst]),
            "clean": torch.stack([p.clean for p in pictures]).numpy(),
            "perturbed": torch.stack([p.perturbed for p in pictures]).numpy(),
        }
        if pictures[0].masks:
            names = ("reference_mask", "clean_mask", "perturbed_mask", "moved_mask")
            for name, masks in zip(
                names, zip(*(p.masks for p in pictures), strict=True), strict=True
            ):
                found[name] = torch.stack(masks).to(torch.uint8).numpy()
        return found
