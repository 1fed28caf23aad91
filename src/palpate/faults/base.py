"""Bits that flip in a target: the base restores every one of them."""

import zlib
from abc import abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import nn
from typing_extensions import override

from palpate.errors import RestorationError
from palpate.faults._trace import probe
from palpate.perturbation import Enter, Perturbation, World
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch


@dataclass(frozen=True)
class Fault(Perturbation):
    """Base of all fault models.

    A component says how one trial is entered; the final methods check that afterwards every bit of
    every parameter and buffer, every hook and every `forward` is as it was.

    Attributes:
        trials: faults, one after the other, each from a fault-free model.
    """

    family: ClassVar[str] = "faults"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    trials: int = field(default=100, kw_only=True)

    @property
    @override
    def passes(self) -> float:
        # replayed from the fault on; measured on three networks
        return 0.6

    @final
    def check(self, target: Target) -> None:
        """Refuse a target or a setting before any compute is spent.

        Raises:
            CapabilityError: the target's weights cannot be reached.
            ConfigError: a setting that this target cannot serve.
        """
        super().check(target)
        self._check(target)

    @abstractmethod
    def _check(self, target: Target) -> None:
        """Refuse a setting that this target cannot serve."""

    @abstractmethod
    def _ready(self, target: Target, batch: Batch) -> AbstractContextManager[Enter]:
        """Do what is the same for all trials on this batch."""

    @final
    @contextmanager
    def prepared(self, target: Target, batch: Batch) -> Generator[Enter]:
        """Run the golden pass once, and yield what enters one trial's world.

        Raises:
            CapabilityError: the target's weights cannot be reached.
            ConfigError: a setting that this target cannot serve.
            RestorationError: a trial left the model changed.
        """
        self.check(target)
        target.predict(probe(batch, 2))  # some models hook themselves up on their first call
        before = fingerprint(target.module)
        with self._ready(target, batch) as enter:
            yield enter
        after = fingerprint(target.module)
        if after != before:
            changed = sorted(
                k for k in before.keys() | after.keys() if before.get(k) != after.get(k)
            )
            raise RestorationError(
                f"{self!r}: expected {target.name} as it was before the fault,"
                f" got changes in {', '.join(changed[:5])}"
            )

    @final
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        """One trial on its own; `prepared` saves the golden pass when there are several."""
        with self.prepared(target, batch) as enter, enter(seeds) as world:
            yield world


def fingerprint(module: nn.Module) -> dict[str, int]:
    """Checksum of every parameter and buffer, and of hooks and patched methods per module."""
    sums = {
        name: zlib.crc32(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        )
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if not tensor.is_meta and tensor.numel()
    }
    for name, child in module.named_modules():
        patched = id(child.__dict__.get("forward"))
        hooks = [*child._forward_hooks, *child._forward_pre_hooks]
        sums[f"{name}.forward()"] = hash((patched, *hooks))
    return sums
