"""SEA: the worst of several losses for each image, each climbed with a shrinking radius.

Croce, Singh, Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation
Models", arXiv 2306.12941, sections 2 and 3. The worst is taken by the audit's own score (Dice),
which is what the report shows; the paper takes it by pixel accuracy.

| code | meaning | symbol | section |
|---|---|---|---|
| losses | jsd, masked_ce, masked_spherical, segpgd (there: balanced cross-entropy) | L | 2.2 |
| steps | iterations for each loss | – | 2.3 |
| _RADII | radius over ε and its share of the steps | 2ε, 1.5ε, ε | 2.3 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from typing_extensions import override

from palpate.attacks._apgd import Ascent, Measuring
from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Measure, Rows, Search, some
from palpate.attacks._loss import LossName, Objective
from palpate.attacks._projection import project
from palpate.attacks._start import reseed, uniform_start
from palpate.attacks.base import Attack
from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Images, Logits, PerSample, Prediction

_RADII: Final = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))


@final
@dataclass(frozen=True)
class Sea(Attack):
    """APGD on each loss from a random point, radius 2 ε, 1.5 ε, ε; the worst per image counts.

    Attributes:
        steps: gradient steps for each loss.
        losses: what is climbed, one after another.
    """

    steps: int = 300
    losses: tuple[LossName, ...] = field(
        default=("jsd", "masked_ce", "masked_spherical", "segpgd"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        if not self.losses:
            raise ConfigError("losses: expected at least one, got none")

    @property
    @override
    def passes(self) -> float:
        return 3.0 * (self.steps + len(_RADII)) * len(self.losses)

    @override
    def check(self, target: Target) -> None:
        """Refuse losses that the task does not have.

        Raises:
            ConfigError: with the losses that it has.
        """
        super().check(target)
        for loss in self.losses:
            Objective(loss).check(target.task)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        rows = torch.arange(len(search.images), device=search.images.device)
        last = search.images
        for number, loss in enumerate(self.losses):
            last = self._start(search, [reseed(seed, number) for seed in seeds])
            for radius, share in _RADII:
                part = search.part(rows)
                start = self._within(last, part, radius)
                steps = max(1, round(share * self.steps))
                ascent = Ascent(self.norm, radius * self.epsilon, steps)
                stopped = ascent.run(part, start, measuring=_measuring(part, loss))
                # the next radius begins at the best of this one; beyond ε nothing counts
                last = part.best if radius > 1 else stopped
                if radius > 1:
                    search.passes += part.passes
                else:
                    search.join(part, rows)
        return last

    def _start(self, search: Search, seeds: Sequence[int]) -> Images:
        return uniform_start(
            search.images,
            seeds,
            norm=self.norm,
            epsilon=_RADII[0][0] * self.epsilon,
            bounds=search.target.bounds,
        )

    def _within(self, images: Images, search: Search, radius: float) -> Images:
        return project(
            images,
            search.images,
            norm=self.norm,
            epsilon=radius * self.epsilon,
            bounds=search.target.bounds,
        )


def _measuring(search: Search, loss: LossName) -> Measuring:
    objective = Objective(loss)

    def of(rows: Rows | None, progress: float) -> Measure:
        references = some(search.references, rows)

        def measure(logits: Logits) -> PerSample:
            exclusive = Prediction(logits, search.target.task).exclusive
            return objective(logits, references, exclusive=exclusive, progress=progress)

        return measure

    return of
