"""AutoAttack: four unlike attacks with nothing to tune; a sample that one breaks is done.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", arXiv 2003.01690, section 5, "standard" version: APGD on cross-entropy,
targeted APGD on DLR, targeted FAB, each of 100 iterations and at most nine targets, and Square with
5,000 queries. With fewer than four classes there is no DLR and the margin takes its place; with
fewer than ten, every other class is a target. Labels that do not exclude each other have no class
to be led to: they meet APGD on cross-entropy and on the margin, and Square, and each sample keeps
the iterate with the fewest right labels.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | iterations of APGD and FAB | N_iter | 5 |
| targets | most classes aimed at | – | 5 |
| queries | of Square | – | 5 |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search
from palpate.attacks._start import reseed
from palpate.attacks.apgd import Apgd
from palpate.attacks.base import Attack
from palpate.attacks.fab import Fab
from palpate.attacks.square import Square
from palpate.errors import CapabilityError, ConfigError
from palpate.targets.base import Target
from palpate.types import Classification, Images, MultiLabel, Task


@final
@dataclass(frozen=True)
class Autoattack(Attack):
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on the samples that still stand.

    Attributes:
        steps: iterations of APGD and FAB.
        targets: most classes aimed at, likeliest first.
        queries: of Square; 0 leaves it out.
        stop_at_success: samples leave in the middle of an attack too (see pgd); the robust
            accuracy is the same.
    """

    version = 3

    steps: int = 100
    targets: int = 9
    queries: int = 5000
    stop_at_success: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, None)
        if self.targets < 1 or self.queries < 0:
            raise ConfigError(
                "expected targets of 1 or more and queries of 0 or more, got"
                f" {self.targets} and {self.queries}"
            )

    @property
    @override
    def passes(self) -> float:
        return sum(member.passes for member in self._members(None))

    @override
    def check(self, target: Target) -> None:
        """Refuse masks.

        Raises:
            CapabilityError: with the ensemble for them.
            ConfigError: epsilon beyond the bounds.
        """
        super().check(target)
        if not isinstance(target.task, Classification | MultiLabel):
            raise CapabilityError(
                "autoattack: expected a task of Classification or MultiLabel, got"
                f" {type(target.task).__name__}; the ensemble for masks: sea"
            )

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        last, room = search.images, len(search.images)
        for number, member in enumerate(self._members(search.target.task)):
            # the first sees all samples, so that each has a worst iterate, not only a broken one
            rows = search.standing()
            if not len(rows):
                break
            part = search.part(rows)
            part.objective = member.objective
            if isinstance(member, Fab):
                found = self._near(part, member, room)
                search.passes += part.passes
                search.look(found, rows=rows)
            else:
                own = [reseed(seeds[i], number) for i in rows.tolist()]
                found = member.pursue(part, own, room=room)
                search.join(part, rows)
            last = last.index_copy(0, rows, found)
        return last

    def _near(self, search: Search, member: Fab, room: int) -> Images:
        """The nearest broken inputs, cut where they lie beyond epsilon."""
        search.nearest = member.norm
        member.pursue(search, room=room, enough=self.epsilon, leave_at_once=self.stop_at_success)
        return member._finished(search)

    def _members(self, task: Task | None) -> Iterator[Apgd | Fab | Square]:
        """In the order of the paper; None for the task that costs most."""
        epsilon, norm, steps, leave = self.epsilon, self.norm, self.steps, self.stop_at_success
        several = isinstance(task, MultiLabel)
        yield Apgd(epsilon=epsilon, norm=norm, steps=steps, stop_at_success=leave)
        yield Apgd(
            epsilon=epsilon,
            norm=norm,
            steps=steps,
            loss="margin" if several else "dlr",
            targets=0 if several else self.targets,
            stop_at_success=leave,
        )
        if not several:
            yield Fab(epsilon=epsilon, norm=norm, steps=steps, targets=self.targets)
        if self.queries:
            yield Square(epsilon=epsilon, norm=norm, queries=self.queries)
