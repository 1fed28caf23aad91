"""Enter a disturbed world, leave it as it was.

Attacks, corruptions and occlusions change the batch; faults change the target. The evaluation
never asks which kind it has: it enters `prepared` once per batch and `applied` once per trial.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from palpate import registry
from palpate.datasets.base import Samples
from palpate.errors import BudgetError, CapabilityError
from palpate.outcome import Certificate, Outcome, Status, Trace
from palpate.seeds import Seeds
from palpate.targets._checkpoint import contents
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, Images, References

Carry = Callable[[References], References]

_STUDIED = 64


class World(NamedTuple):
    """A disturbed world.

    Attributes:
        target: who answers in it.
        batch: what is asked in it.
        status: per sample, whether the disturbance could act.
        last: the attack's last iterate where it differs from `batch.images` (the best), else None.
        notes: plain data about this trial, such as the fault sites; equal for every batch.
        carry: takes masks of the undisturbed world to where the disturbance has moved the pixels,
            so that a turned image is compared with a turned reference; None where they stay.
        traces: per sample, what a search says of itself; empty for everything else.
        certificates: per sample, what the target proves; empty where it proves nothing.
    """

    target: Target
    batch: Batch
    status: tuple[Status, ...]
    last: Images | None = None
    notes: dict[str, Any] = {}  # noqa: RUF012 - never written to
    carry: Carry | None = None
    traces: tuple[Trace, ...] = ()
    certificates: tuple[Certificate, ...] = ()

    @classmethod
    def undisturbed(cls, target: Target, batch: Batch) -> "World":
        """The world as it is."""
        return cls(target, batch, (Status.OK,) * len(batch))


Enter = Callable[[Seeds], AbstractContextManager[World]]


@dataclass(frozen=True)
class Perturbation(ABC):
    """Base of all four families.

    Class attributes:
        family: name of the family.
        version: raised when the same parameters would give other numbers.
        needs: what the target must offer, out of "gradients" and "weights".
        dose: the parameter that sets the strength. All doses share their random numbers, so a
            curve over the dose compares like with like (nested occlusions, scaled noise).
    """

    family: ClassVar[str]
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    dose: ClassVar[str] = ""

    @property
    def repeats(self) -> int:
        """How many independent trials there are."""
        return int(getattr(self, "trials", 1))

    @property
    def first(self) -> int:
        """Number of the first trial that has not run."""
        return 0

    @property
    def passes(self) -> float:
        """Cost of one trial in forward passes, a gradient counted as three; for estimates."""
        return 1.0

    def seeds(self, campaign: int) -> Seeds:
        """Source of randomness for trial 0; the same for every dose and number of trials."""
        shared = {"trials", self.dose}
        spec = {k: v for k, v in registry.describe(self).items() if k not in shared}
        cell = registry.canonical([registry.name_of(self), self.version, spec])
        return Seeds(campaign=campaign, cell=cell)

    def identity(self, target: Target, batch: Batch) -> dict[str, Any]:  # noqa: ARG002
        """What determines the result, as plain data: the parameters, and what they stand for.

        Args:
            target: bare model that it will be measured on.
            batch: some of the samples, for their shape.

        Raises:
            UsageError: files or data that a parameter names are missing or damaged.
        """
        return {**registry.describe(self), **contents(self)}

    def check_samples(self, samples: Samples) -> None:  # noqa: B027 - few refuse any
        """Refuse data that this must not be measured on, before compute is spent.

        Raises:
            DataError: says which samples, and why.
        """

    def check(self, target: Target) -> None:
        """Refuse a target that this perturbation cannot run on, before compute is spent.

        Raises:
            CapabilityError: the target lacks something in `needs`.
        """
        missing = self.needs - target.offers
        if missing:
            raise CapabilityError(
                f"{registry.name_of(self)}: expected a target with {', '.join(sorted(missing))},"
                f" got {target.name} with {', '.join(sorted(target.offers)) or 'neither'};"
                f" {self._instead(missing)}"
            )

    def _instead(self, missing: frozenset[str]) -> str:
        """Name the components of the family that do without; plug-ins stay unloaded."""
        own = (name for name in registry.names(self.family) if "/" not in name)
        able = [name for name in own if not registry.load(self.family, name).needs & missing]
        lacking = " and ".join(sorted(missing))
        if not able:
            return f"no {self.family} do without {lacking}"
        return f"{self.family} that do without {lacking}: {', '.join(able)}"

    @property
    def looks_first(self) -> bool:
        """Whether `fitted` looks at the samples at all."""
        return type(self).fitted is not Perturbation.fitted

    def studied(self, count: int) -> Sequence[int]:
        """Which of so many samples a search looks at before any batch is met; see `fitted`.

        Fixed, so that the batch size changes no result.
        """
        return range(min(count, _STUDIED))

    def fitted(self, target: Target, batch: Batch) -> "Perturbation":  # noqa: ARG002
        """Look at some samples before any batch is met; a search returns what it found."""
        return self

    def continued(self, outcomes: Sequence[Outcome]) -> "Perturbation | None":  # noqa: ARG002
        """Plan more trials, given what all trials so far did on all samples; None for no more.

        What is returned runs its trials from `first` to `repeats`, under the same seeds.
        """
        return None

    def prepared(self, target: Target, batch: Batch) -> AbstractContextManager[Enter]:
        """Do what is the same for all trials on this batch; undone on leaving.

        Yields:
            A function that takes one trial's seeds and enters its world, as `applied` does. The
            golden prediction belongs inside: a fault may store the weights in another format.
        """
        return nullcontext(lambda seeds: self.applied(target, batch, seeds=seeds))

    @abstractmethod
    def applied(
        self, target: Target, batch: Batch, *, seeds: Seeds
    ) -> AbstractContextManager[World]:
        """Enter one trial's disturbed world; on leaving everything is as it was."""


@dataclass(frozen=True)
class ImagePerturbation(Perturbation):
    """Base of corruptions and occlusions: a batched function of the images alone.

    Attributes:
        trials: independent draws per sample.
    """

    trials: int = field(default=1, kw_only=True)

    @abstractmethod
    def _disturb(self, images: Images, bounds: Bounds, seeds: Sequence[int]) -> Images:
        """Return disturbed images of the same shape, within the bounds."""

    @property
    @abstractmethod
    def is_identity(self) -> bool:
        """Whether this setting changes nothing (severity 0, coverage 0)."""

    @final
    def __call__(
        self, images: Images, *, bounds: Bounds | None = None, seeds: Sequence[int] | None = None
    ) -> Images:
        """Disturb images.

        Args:
            images: (batch, channel, *spatial) within the bounds.
            bounds: legal range; [0, 1] by default.
            seeds: one per sample; the sample's position by default.

        Returns:
            Same shape and dtype, within the bounds.

        Raises:
            BudgetError: the component left the legal range, changed the shape, or was no identity
                at its zero setting.
        """
        if self.is_identity:
            return images
        legal = Bounds() if bounds is None else bounds
        chosen = list(range(len(images))) if seeds is None else seeds
        disturbed = self._disturb(images, legal, chosen)
        check_legal(self, images, disturbed, legal)
        return disturbed

    @final
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        """Yield the same target and the disturbed batch."""
        images = self(batch.images, bounds=target.bounds, seeds=seeds.per_sample(batch.samples))
        yield World(target, batch.with_images(images), (Status.OK,) * len(batch))


def check_legal(who: object, before: Tensor, after: Tensor, bounds: Bounds) -> None:
    """Raise unless `after` has the shape of `before` and lies within the bounds, all finite.

    Raises:
        BudgetError: with the component's repr, what was allowed and what came.
    """
    if after.shape != before.shape or after.dtype != before.dtype:
        raise BudgetError(
            f"{who!r}: expected {tuple(before.shape)} {before.dtype},"
            f" got {tuple(after.shape)} {after.dtype}"
        )
    low, high = float(after.min()), float(after.max())
    if not (bounds.low <= low and high <= bounds.high):  # also catches NaN
        raise BudgetError(f"{who!r}: expected values within {tuple(bounds)}, got [{low}, {high}]")


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per sample, so that draws agree on every device and batch size."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw_normal(images: Images, seeds: Sequence[int]) -> Images:
    """Standard normal noise of the images' shape, each sample from its own seed."""
    shape = images.shape[1:]
    drawn = [torch.randn(shape, generator=g, dtype=images.dtype) for g in generators(seeds)]
    return torch.stack(drawn).to(images.device)


def draw_uniform(images: Images, seeds: Sequence[int]) -> Images:
    """Uniform noise in [0, 1) of the images' shape, each sample from its own seed."""
    shape = images.shape[1:]
    drawn = [torch.rand(shape, generator=g, dtype=images.dtype) for g in generators(seeds)]
    return torch.stack(drawn).to(images.device)
