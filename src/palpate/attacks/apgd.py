"""Auto-PGD: ascent without a step size to choose, the strongest single gradient attack here.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", arXiv 2003.01690, sections 3 and 4; the ascent itself is in `_apgd`. In L1
it is the sparse one of Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", arXiv 2103.01208.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | iterations | N_iter | 3 |
| border_start | first point | x(0) | 3.1 |
| loss: dlr | difference of logits ratio | DLR | 4.1, eq. 6 |
| targets | classes aimed at, the likeliest first | T | 4.2, eq. 7 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from torch import Tensor
from typing_extensions import override

from palpate.attacks._apgd import Ascent, Measuring
from palpate.attacks._climb import RefinedAttack
from palpate.attacks._contrast import likeliest
from palpate.attacks._gradient import Measure, Rows, Search, put, some
from palpate.attacks._loss import Objective, has_dlr, targeted_dlr, targeted_margin
from palpate.attacks._pairs import broken, packed
from palpate.attacks._start import border_start, reseed
from palpate.attacks.base import only_classification
from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Images, Logits, PerSample, References


@final
@dataclass(frozen=True)
class Apgd(RefinedAttack):
    """Momentum ascent from a random point; the step halves where it stops to pay.

    Attributes:
        norm: "linf", "l2" or "l1".
        steps: gradient steps per start.
        restarts: number of starts; only samples that still stand are started again.
        targets: 0 for the plain loss; else so many other classes, likeliest first, are aimed at one
            after another by the targeted form of `loss: dlr` (the margin below four classes) or
            of `loss: margin`; never more than there are.
        stop_at_success: a sample whose score has reached 0 leaves at once (see pgd).
    """

    # wider than in the base, whose other attacks have no sparse step
    norm: Literal["linf", "l2", "l1"] = field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="linf", kw_only=True
    )
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    stop_at_success: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1 or self.targets < 0:
            raise ConfigError(
                "expected steps and restarts of 1 or more and targets of 0 or more, got"
                f" {self.steps}, {self.restarts} and {self.targets}"
            )
        if self.targets and self.loss not in ("dlr", "margin"):
            raise ConfigError(f"targets: expected loss dlr or margin, got {self.loss!r}")

    @property
    @override
    def passes(self) -> float:
        return 3.0 * (self.steps + 1) * self.restarts * max(1, self.targets) + 1

    @property
    @override
    def objective(self) -> Objective:
        if self.targets:  # ranks iterates; there is one for every number of classes
            return Objective("margin")
        return super().objective

    @override
    def check(self, target: Target) -> None:
        """Refuse a loss that the task does not have, and classes to aim at where there are none.

        Raises:
            CapabilityError: `targets` for a task that is no classification.
            ConfigError: a loss or a budget that does not fit.
        """
        super().check(target)
        if self.targets:
            only_classification(self, target)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        return self.pursue(search, seeds, room=len(search.images))

    def pursue(self, search: Search, seeds: Sequence[int], *, room: int) -> Images:
        """Search, with at most `room` images at once where samples are led to several classes."""
        last, classes = search.images, None
        if self.targets:
            clean = search.look(search.images).logits
            classes = likeliest(clean, search.references, self.targets)
        for restart in range(self.restarts):
            rows = search.standing() if restart else None
            if rows is not None and not len(rows):
                break
            start = self._start(search, [reseed(seed, restart) for seed in seeds])
            if classes is None:
                last = put(last, rows, self._climb(search, rows, some(start, rows)))
            else:
                last = self._aimed(search, classes, start, last=last, room=room)
        return last

    def _start(self, search: Search, seeds: Sequence[int]) -> Images:
        return border_start(
            search.images,
            seeds,
            norm=self.norm,
            epsilon=self.epsilon,
            bounds=search.target.bounds,
        )

    def _climb(self, search: Search, rows: Rows | None, start: Images) -> Images:
        part = search if rows is None else search.part(rows)
        last = self._ascent.run(part, start)
        if rows is not None:
            search.join(part, rows)
        return last

    def _aimed(
        self, search: Search, classes: Tensor, start: Images, *, last: Images, room: int
    ) -> Images:
        """Climb towards the classes of each sample in turn; the last iterates."""
        room = 1 if self.eot > 1 else room  # what is drawn inside hangs on the order of asking
        for pairs in packed(search, classes.shape[1], room=room, done=broken):
            part = search.part(pairs.samples)
            aims = classes[pairs.samples, pairs.numbers]
            stopped = self._ascent.run(
                part,
                start[pairs.samples],
                measuring=self._measuring(part.references, aims),
                leaving=pairs.leaving(part, broken, at_once=self.stop_at_success),
            )
            for chosen in pairs.settle(search, part, broken):
                last = put(last, pairs.samples[chosen], stopped[chosen])
        return last

    @property
    def _ascent(self) -> Ascent:
        return Ascent(self.norm, self.epsilon, self.steps, self.stop_at_success)

    def _measuring(self, labels: References, aims: References) -> Measuring:
        def of(rows: Rows | None, progress: float) -> Measure:  # noqa: ARG001
            true, aim = some(labels, rows), some(aims, rows)

            def measure(logits: Logits) -> PerSample:
                if self.loss == "dlr" and has_dlr(logits.shape[1]):
                    return targeted_dlr(logits, true, aim)
                return targeted_margin(logits, true, aim)

            return measure

        return of
