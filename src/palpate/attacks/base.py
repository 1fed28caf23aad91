"""Attack base: the frame keeps the budget, the legal range and the model; a component searches."""

from abc import abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, final

from palpate.attacks._gradient import Search
from palpate.attacks._projection import size
from palpate.errors import BudgetError, ConfigError
from palpate.outcome import Status
from palpate.perturbation import Perturbation, World, check_legal
from palpate.registry import Number
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Images, References


class Found(NamedTuple):
    """Result of one attack.

    Attributes:
        images: best iterates, as the audit scores them.
        last: last iterates, as most libraries return them.
        status: per sample, whether there was a gradient and the input moved.
        forwards: model passes over the batch.
    """

    images: Images
    last: Images
    status: tuple[Status, ...]
    forwards: int


@dataclass(frozen=True)
class Attack(Perturbation):
    """Base of all attacks.

    Attributes:
        epsilon: largest allowed norm of the difference, in units of the target's bounds.
        norm: "linf" or "l2".
    """

    family: ClassVar[str] = "attacks"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    dose: ClassVar[str] = "epsilon"

    epsilon: Number = field(default=2 / 255, kw_only=True)
    norm: Literal["linf", "l2"] = field(default="linf", kw_only=True)

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ConfigError(f"epsilon: expected 0 or more, got {self.epsilon}")

    @abstractmethod
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        """Search with `search.gradient` and `search.look`; return the last iterate."""

    def check(self, target: Target) -> None:
        """Refuse a budget that no input could spend.

        Raises:
            ConfigError: epsilon beyond the width of the bounds.
        """
        super().check(target)
        width = target.bounds.high - target.bounds.low
        if self.norm == "linf" and self.epsilon > width:
            raise ConfigError(
                f"{self!r}: expected epsilon within the width {width:g} of the bounds"
                f" {tuple(target.bounds)}, got {self.epsilon:g}"
            )

    @final
    def __call__(
        self,
        target: Target,
        images: Images,
        references: References,
        *,
        seeds: Sequence[int] | None = None,
    ) -> Images:
        """Attack images and return the best iterates.

        Args:
            target: the model; its parameters and their gradients are left as they were.
            images: (batch, channel, *spatial), within the target's bounds.
            references: as in `Batch.references`.
            seeds: one per sample; the position by default.

        Returns:
            Same shape, within epsilon of the images and within the bounds.

        Raises:
            BudgetError: the component overspent (a defect of the component).
            ConfigError: epsilon beyond the bounds.
        """
        return self.search(target, images, references, seeds=seeds).images

    @final
    def search(
        self,
        target: Target,
        images: Images,
        references: References,
        *,
        seeds: Sequence[int] | None = None,
    ) -> Found:
        """As calling, with the last iterate, the status and the cost beside the best."""
        self.check(target)
        clean = images.detach().to(target.device)
        if self.epsilon == 0:
            return Found(clean, clean, (Status.OK,) * len(clean), 0)
        search = Search(target, clean, references.to(target.device))
        with target.frozen():
            last = self._run(search, list(range(len(clean))) if seeds is None else seeds)
        self._check_budget(clean, search.best, target)
        self._check_budget(clean, last, target)
        moved = (last != clean).flatten(1).any(dim=1)
        felt = zip(search.felt.tolist(), moved.tolist(), strict=True)
        return Found(search.best, last, tuple(_status(*pair) for pair in felt), search.forwards)

    @final
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        """Yield the same target and the attacked batch."""
        found = self.search(
            target, batch.images, batch.references, seeds=seeds.per_sample(batch.samples)
        )
        yield World(target, batch.with_images(found.images), found.status, last=found.last)

    def _check_budget(self, clean: Images, images: Images, target: Target) -> None:
        check_legal(self, clean, images, target.bounds)
        spent = float(size(images.double() - clean.double(), self.norm).max())
        slack = 1e-6 * (target.bounds.high - target.bounds.low)  # float32 rounding of clean + delta
        if spent > self.epsilon + slack:
            raise BudgetError(f"{self!r}: expected at most {self.epsilon:.8g}, spent {spent:.8g}")


def _status(felt: bool, moved: bool) -> Status:  # noqa: FBT001 - two flags of one sample
    if not felt:
        return Status.NO_GRADIENT
    return Status.OK if moved else Status.NO_MOVE
