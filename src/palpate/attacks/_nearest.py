"""Base of the attacks without a fixed budget: the nearest input with another decision."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final, get_args

import torch
from typing_extensions import override

from palpate import registry
from palpate.attacks._gradient import Rows, Search
from palpate.attacks._projection import project
from palpate.attacks._success import Kind, Success
from palpate.attacks.base import NormAttack, check_epsilon
from palpate.errors import CapabilityError
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Classification, Images, References, Task, Tokens


@dataclass(frozen=True)
class MinimalAttack(NormAttack):
    """Base of the attacks that look for the nearest input with another decision.

    The images are the nearest broken inputs that were found; the record holds their norms. Where
    `epsilon` is given, an input that lies farther is brought back to that distance. A sample that
    is wrong already stays as it is, at distance 0.

    Attributes:
        epsilon: largest norm that is worth reporting, in units of the target's bounds; None for
            no limit, and then the cell has no budget that it could be compared at.
    """

    epsilon: Number | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)

    @property
    @override
    def budget(self) -> float | None:
        return self.epsilon

    @property
    def success(self) -> Success | None:
        """When masks and sets of labels are broken; None for an attack on single labels alone."""
        return None

    @property
    def serves(self) -> tuple[type, ...]:
        """Tasks that the attack has a nearest broken input for."""
        return (Classification,) if self.success is None else get_args(Task)

    @override
    def check(self, target: Target) -> None:
        """Refuse a task that the attack does not serve.

        Raises:
            CapabilityError: with the task, and the attacks that do.
        """
        super().check(target)
        if not isinstance(target.task, self.serves):
            raise CapabilityError(
                f"{registry.name_of(self)}: expected a task of"
                f" {' or '.join(task.__name__ for task in self.serves)}, got"
                f" {type(target.task).__name__}; minimal attacks on it:"
                f" {', '.join(_serving(target.task))}; within a fixed budget: sea"
            )

    @final
    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        right = settled(search)
        if len(right):
            part = search.part(right)
            self._approach(part, [seeds[i] for i in right.tolist()])
            search.join(part, right)
        return self._finished(search)

    @abstractmethod
    def _approach(self, search: Search, seeds: Sequence[int]) -> None:
        """Search among samples that are right when clean; every iterate asked for counts."""

    @override
    def _searching(
        self, target: Target, clean: Images, references: References, tokens: Tokens | None
    ) -> Search:
        return Search(
            target,
            clean,
            references,
            self.objective,
            tokens=tokens,
            nearest=self.norm,
            success=self.success,
        )

    @override
    def _finished(self, search: Search) -> Images:
        if self.epsilon is None:
            return search.best
        return project(
            search.best,
            search.images,
            norm=self.norm,
            epsilon=self.epsilon,
            bounds=search.target.bounds,
        )


@dataclass(frozen=True)
class CriterionAttack(MinimalAttack):
    """Base of those that let the audit file say when masks are broken.

    Attributes:
        criterion: "dice_below" `bar`, or "pixel_success" from a share `bar` of wrong pixels on.
            Where labels do not exclude each other, the share of right ones takes the place of
            Dice, and they are the pixels; a single label is broken when it is wrong.
        bar: in (0, 1].
    """

    criterion: Kind = field(default="dice_below", kw_only=True)
    bar: Number = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.success  # refuses a bar that is none

    @property
    @override
    def success(self) -> Success:
        return Success(self.criterion, self.bar)


def _serving(task: Task) -> list[str]:
    """Names of the minimal attacks that serve a task; plug-ins stay unloaded."""
    own = (name for name in registry.names("attacks") if "/" not in name)
    minimal = [name for name in own if issubclass(registry.load("attacks", name), MinimalAttack)]
    return [name for name in minimal if isinstance(task, registry.create("attacks", name).serves)]


def settled(search: Search) -> Rows:
    """Look at the clean inputs; indices of those that are right, the others need no attack."""
    answer = search.look(search.images)
    wrong = search.judged(answer.logits) <= 0
    zero = torch.zeros_like(search.score)
    search.score = torch.where(wrong, zero, search.score)
    search.distance = torch.where(wrong, zero, search.distance)
    search.felt |= wrong
    return torch.nonzero(~wrong).flatten()
