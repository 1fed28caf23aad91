"""Attack bases: the frame keeps the budget, the legal range and the model; a component searches.

::

    AnyAttack              the frame
    ├── NormAttack         the budget is a norm of the difference
    │   ├── Attack         fixed: `epsilon`; the most damage within it is searched
    │   │   └── LossAttack   climbs a loss that the audit file chooses (`_climb`)
    │   └── MinimalAttack  not fixed: the nearest broken input is searched (`_nearest`)
    ├── ParametricAttack   the budget limits the few parameters of a transform (`_parametric`)
    └── AdversarialPatch   the budget limits the area that may change
"""

import math
from abc import abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from typing_extensions import override

from palpate import registry
from palpate.attacks._call import Found, Given
from palpate.attacks._gradient import Search
from palpate.attacks._loss import Objective
from palpate.attacks._parts import BatchSize, in_parts
from palpate.attacks._projection import size
from palpate.errors import BudgetError, CapabilityError, ConfigError
from palpate.outcome import Status
from palpate.perturbation import Carry, Perturbation, World, check_legal
from palpate.registry import Number
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Classification, Images, References, Tokens


@dataclass(frozen=True)
class AnyAttack(Perturbation):
    """The frame around every attack.

    Class attributes:
        shared: whether all samples share one change, so that each one's hangs on the others'.
    """

    shared: ClassVar[bool] = False

    family: ClassVar[str] = "attacks"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    @abstractmethod
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        """Search with `search.gradient` and `search.look`; return the last iterate."""

    @property
    @abstractmethod
    def budget(self) -> float | None:
        """Largest allowed dose, such as a norm of the difference; None where there is no limit."""

    @property
    def objective(self) -> Objective:
        """The loss that the search increases."""
        return Objective()

    @override
    def seeds(self, campaign: int) -> Seeds:
        """The same draws for every setting of one attack, so that settings compare like with like.

        Early leaving, another loss or more steps then start from the same points.
        """
        cell = registry.canonical([registry.name_of(self), self.version])
        return Seeds(campaign=campaign, cell=cell)

    @property
    def separable(self) -> bool:
        """Whether a sample's result is the same in every batch, so that a batch may be cut."""
        return not self.shared

    @final
    def __call__(
        self,
        target: Target,
        images: Images,
        references: References,
        *,
        prompts: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        batch_size: BatchSize = None,
    ) -> Images:
        """Attack images and return the best iterates.

        Where memory runs out, fewer samples are taken at once, and an OutOfMemoryWarning says so.

        Args:
            target: the model; its parameters and their gradients are left as they were.
            images: (batch, channel, *spatial), within the target's bounds.
            references: as in `Batch.references`.
            prompts: one text per image for prompted tasks.
            seeds: one per sample; the position by default.
            batch_size: most samples at once, of attacks that are `separable`; "auto" for as many
                as fit into the free memory, by what a step with one and with two of them takes;
                None for all. Results are those of all at once, up to the model's rounding.

        Returns:
            Same shape, within the budget and within the bounds.

        Raises:
            BudgetError: the component overspent (a defect of the component).
            ConfigError: epsilon beyond the bounds; a batch size that is none, or of an attack whose
                samples hang on each other, or "auto" where the free memory is not known.
        """
        given = Given.of(target, images, references, prompts=prompts, seeds=seeds)
        return in_parts(self, given, batch_size).images

    @final
    def search(
        self,
        target: Target,
        images: Images,
        references: References,
        *,
        prompts: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        batch_size: BatchSize = None,
    ) -> Found:
        """As calling, with the last iterate, the status and the cost beside the best."""
        given = Given.of(target, images, references, prompts=prompts, seeds=seeds)
        return in_parts(self, given, batch_size)

    @final
    def whole(self, given: Given) -> Found:
        """Search all samples at once, come what may; an audit cuts its batches itself."""
        self.check(given.target)
        if self.budget == 0:
            clean = given.images.detach().to(given.target.device)
            return Found(clean, clean, (Status.OK,) * len(clean), 0)
        with given.target.frozen():
            search = self._begun(given)
            last = self._run(search, given.seeds)
        best = self._finished(search)
        for images in (best, last):
            check_legal(self, search.images, images, given.target.bounds)
            self._check_budget(search, images)
        return Found.of(search, best, last, self._carry(search))

    @final
    def ask_once(self, given: Given) -> None:
        """One question about all samples at once, as hungry for memory as any of the search."""
        with given.target.frozen():
            self._ask_once(self._begun(given))

    def _begun(self, given: Given) -> Search:
        target = given.target
        clean, references = (t.detach().to(target.device) for t in (given.images, given.references))
        search = self._searching(target, clean, references, target.tokens(given.prompts))
        search.begin(given.seeds)
        return search

    def _ask_once(self, search: Search) -> None:
        if "gradients" in self.needs:
            search.ask(search.images)
        else:
            search.look(search.images)

    @final
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        """Yield the same target and the attacked batch."""
        drawn = seeds.per_sample(batch.samples)
        prompts = self._prompts(batch, drawn)
        found = self.whole(Given(target, batch.images, batch.references, prompts, drawn))
        # the last iterate has masks of its own, which the audit does not keep
        last = found.last if found.carry is None else None
        moved = batch.with_images(found.images)
        yield World(target, moved, found.status, last=last, carry=found.carry, traces=found.traces)

    def _prompts(self, batch: Batch, seeds: Sequence[int]) -> tuple[str, ...] | None:  # noqa: ARG002
        """What the attacker takes for the prompts; those of the audit."""
        return batch.prompts

    def _searching(
        self, target: Target, clean: Images, references: References, tokens: Tokens | None
    ) -> Search:
        return Search(target, clean, references, self.objective, tokens=tokens)

    def _finished(self, search: Search) -> Images:
        return search.best

    def _carry(self, search: Search) -> Carry | None:  # noqa: ARG002
        """What takes masks to where the best iterates have moved the pixels."""
        return None

    @abstractmethod
    def _check_budget(self, search: Search, images: Images) -> None:
        """Raise BudgetError where the images have spent more than the budget."""


@dataclass(frozen=True)
class NormAttack(AnyAttack):
    """Base of the attacks whose budget is a norm of the difference.

    Attributes:
        norm: "linf" or "l2".
    """

    dose: ClassVar[str] = "epsilon"

    norm: Literal["linf", "l2"] = field(default="linf", kw_only=True)

    @override
    def seeds(self, campaign: int) -> Seeds:
        """The same draws for every setting of one attack and norm."""
        cell = registry.canonical([registry.name_of(self), self.version, self.norm])
        return Seeds(campaign=campaign, cell=cell)

    @override
    def check(self, target: Target) -> None:
        """Refuse a target without gradients, and a budget that no input could spend.

        Raises:
            CapabilityError: the target lacks something in `needs`.
            ConfigError: epsilon beyond the width of the bounds.
        """
        super().check(target)
        epsilon, width = getattr(self, "epsilon", None), target.bounds.high - target.bounds.low
        if self.norm == "linf" and epsilon is not None and epsilon > width:
            raise ConfigError(
                f"{self!r}: expected epsilon within the width {width:g} of the bounds"
                f" {tuple(target.bounds)}, got {epsilon:g}"
            )

    @override
    def _check_budget(self, search: Search, images: Images) -> None:
        if self.budget is None:
            return
        bounds = search.target.bounds
        spent = float(size(images.double() - search.images.double(), self.norm).max())
        slack = 1e-6 * (bounds.high - bounds.low)  # float32 rounding of clean + delta
        if spent > self.budget + slack:
            raise BudgetError(f"{self!r}: expected at most {self.budget:.8g}, spent {spent:.8g}")


@dataclass(frozen=True)
class Attack(NormAttack):
    """Base of the attacks with a fixed budget.

    Attributes:
        epsilon: largest allowed norm of the difference, in units of the target's bounds.
    """

    epsilon: Number = field(default=2 / 255, kw_only=True)

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    @property
    @override
    def budget(self) -> float:
        return self.epsilon


def check_epsilon(epsilon: float) -> None:
    """Refuse a budget that is negative or no number.

    Raises:
        ConfigError: with the value.
    """
    if not 0 <= epsilon < math.inf:
        raise ConfigError(f"epsilon: expected 0 or more, got {epsilon}")


def only_classification(attack: AnyAttack, target: Target) -> None:
    """Refuse a target whose task is no classification.

    Raises:
        CapabilityError: with the attack's name and the task.
    """
    if not isinstance(target.task, Classification):
        raise CapabilityError(
            f"{registry.name_of(attack)}: expected a task of Classification, got"
            f" {type(target.task).__name__}"
        )
