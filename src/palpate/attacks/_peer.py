"""Base of the adapters: another library's attack, its result measured by ours.

The library sees a plain network of images scaled to [0, 1] and a budget scaled with them. What it
returns is scored by the audit's own measure and held to the budget by the frame, as every attack's
result is. Whatever it draws from torch, numpy or Python comes from the sample's own seed.
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from palpate import registry
from palpate.attacks._expectation import seeded
from palpate.attacks._gradient import Search
from palpate.attacks._projection import project
from palpate.attacks.base import NormAttack, check_epsilon, only_classification
from palpate.errors import ConfigError, UnknownComponent, nearest
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Bounds, Images, Logits, References

_ROUNDING: Final = (
    1e-6  # of the bounds' width; a library that leaves the range by more has a defect
)
Maker = Callable[..., Any]


@dataclass(frozen=True)
class PeerAttack(NormAttack):
    """Base of the adapters. Classification only: no other task has a label these libraries know.

    Class attributes:
        library: what is imported.
        install: how to get it.

    Attributes:
        epsilon: largest allowed norm of the difference, in units of the target's bounds. A result
            of an attack without a budget is brought back to it; None for no limit, which only such
            an attack has.
        attack: name in the library.
        arguments: the attack's own parameters, in the library's words, for images scaled to [0, 1];
            those not given are the library's defaults.
        together: hand over whole batches, which is faster; random draws then hang on the batch and
            not on the sample.
    """

    library: ClassVar[str]
    install: ClassVar[str] = "pip install 'palpate[peers]'"

    epsilon: Number | None = field(default=2 / 255, kw_only=True)
    attack: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    together: bool = False

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)

    @property
    @override
    def budget(self) -> float | None:
        return self.epsilon

    @property
    @override
    def separable(self) -> bool:
        return not self.together

    @override
    def check(self, target: Target) -> None:
        """Refuse another task, a library that is not there, and what it does not have.

        Raises:
            CapabilityError: the task is no classification.
            UnknownComponent: no such attack or argument; the nearest names are in the message.
            ConfigError: the library is missing, or refuses an argument.
        """
        super().check(target)
        only_classification(self, target)
        maker = self._maker(self._imported())
        taken = self.arguments.keys() & self._ours(maker).keys()
        if taken:
            raise ConfigError(
                f"{registry.name_of(self)}: arguments: expected none of {', '.join(sorted(taken))},"
                " which epsilon and norm set"
            )
        if self.epsilon != 0:  # which some libraries refuse; the frame then leaves all as it is
            self._built(UnitRange(target).eval(), (1, 8, 8))

    @abstractmethod
    def _maker(self, library: ModuleType) -> Maker:
        """The attack's class."""

    @abstractmethod
    def _ours(self, maker: Maker) -> Mapping[str, Any]:
        """Arguments of the class that epsilon and norm set."""

    @abstractmethod
    def _built(self, network: "UnitRange", shape: tuple[int, ...]) -> Any:
        """The library's attack on images of this shape, with its arguments."""

    @abstractmethod
    def _craft(self, attack: Any, network: "UnitRange", given: tuple[Images, References]) -> Images:
        """Run the library's attack on images in [0, 1] and their labels."""

    def _radius(self, bounds: Bounds) -> float:
        """Epsilon for images scaled to [0, 1].

        Raises:
            ConfigError: there is none.
        """
        if self.epsilon is None:
            name = registry.name_of(self)
            raise ConfigError(f"{name}: epsilon: expected a number for {self.attack}, got None")
        return self.epsilon / (bounds.high - bounds.low)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        network, bounds = UnitRange(search.target).eval(), search.target.bounds
        low, width = bounds.low, bounds.high - bounds.low
        unit = ((search.images - low) / width).clamp(0, 1)
        groups = [slice(None)] if self.together else [slice(i, i + 1) for i in range(len(unit))]
        made: list[Images] = []
        attack = self._built(network, tuple(unit.shape[1:]))
        for group in groups:
            with _drawing(seeds[group][0], unit.device), torch.enable_grad():
                given = (unit[group].clone(), search.references[group])
                crafted = self._craft(attack, network, given)
            made.append(crafted.detach().to(unit))
        moved = self._settled(torch.cat(made) * width + low, search.images, bounds)
        before, after = search.look(search.images).loss, search.look(moved).loss
        search.feel(before != after, None)
        search.passes += network.asked
        return moved

    def _settled(self, moved: Images, clean: Images, bounds: Bounds) -> Images:
        inside = moved.clamp(*bounds)
        if float((moved - inside).abs().max()) > _ROUNDING * (bounds.high - bounds.low):
            return moved  # the frame raises
        if self.epsilon is None or self._keeps_budget:
            return inside
        return project(inside, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)

    @property
    def _keeps_budget(self) -> bool:
        """Whether the library's attack has a budget of its own."""
        return True

    def _imported(self) -> ModuleType:
        try:
            return import_module(self.library)
        except ImportError:
            raise ConfigError(
                f"{registry.name_of(self)} attacks need the library: {self.install}"
            ) from None

    def _chosen(self, known: Mapping[str, Maker], candidates: Collection[str]) -> Maker:
        """The first of the candidates that the library has."""
        for name in candidates:
            if name in known:
                return known[name]
        raise UnknownComponent(
            f"{registry.name_of(self)} has no attack {self.attack!r}; {nearest(self.attack, known)}"
        )

    def _made(self, maker: Maker, *positional: Any, **given: Any) -> Any:
        """The attack with its arguments; what the library says against them becomes one line."""
        try:
            return maker(*positional, **given, **self.arguments)
        except (TypeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{registry.name_of(self)}: {self.attack}: {reason}") from None


class UnitRange(nn.Module):
    """Images in [0, 1] in, logits out; counts what is asked."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.module = target.module
        self.asked = 0
        self.bounds = target.bounds
        self.classes = len(target.task.classes)
        self.device = target.device
        self._target = target

    def forward(self, images: Images) -> Logits:
        """(batch, channel, *spatial) -> (batch, classes)."""
        self.asked += len(images)
        low, high = self.bounds
        return self._target.logits(images * (high - low) + low)


@contextmanager
def _drawing(seed: int, device: torch.device) -> Generator[None]:
    """All global generators set from a seed inside, and as they were afterwards."""
    legacy = np.random.get_state()  # noqa: NPY002 - peers draw from it
    plain = random.getstate()
    try:
        with seeded(seed, device):
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(plain)
