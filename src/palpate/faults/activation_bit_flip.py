"""A bit flips in what one module hands on: a transient fault in an activation buffer."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from palpate.errors import CapabilityError, ConfigError, nearest
from palpate.faults import _bits
from palpate.faults._replay import Replay, is_compiled
from palpate.faults._sites import Place, Scope, describe, places, strata
from palpate.faults._trace import Forward, traced
from palpate.faults._trial import Change
from palpate.faults.base import Fault
from palpate.outcome import Status
from palpate.perturbation import Enter, World
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch

_WIDEST = 64
# they hand on their input and own no memory of their own
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.Flatten)


@final
@dataclass(frozen=True)
class ActivationBitFlip(Fault):
    """One bit of one element of one module's output flips, in every sample at the same place.

    Every sample is its own experiment with exactly one flip in one call. The element, the bit and
    the call depend on the seed and the trial alone. Modules without children count; a module whose
    output has no axis that grows with the batch does not.

    Attributes:
        bits: `all`, one field of a floating number, or bit positions (0 is the lowest).
        scope: `model` draws uniformly over all activation bits; `layer` (a module), `tensor` (one
            output of one call), `bit` and `field` deal the trials evenly.
        layers: module paths or glob patterns to draw from, also of modules with children; empty
            for all modules without children.
    """

    bits: _bits.Bits = "all"
    scope: Scope = "layer"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"activation_bit_flip: expected at least 1 trial, got {self.trials}")

    def _check(self, target: Target) -> None:
        places(target.module)
        if is_compiled(target.module):
            raise CapabilityError(
                f"{target.name}: expected a module whose inner calls can be reached, got a compiled"
                " or scripted one: activations are not testable on this target"
            )
        _bits.check_bits(self.bits, _WIDEST, self)
        self._chosen(target.module)

    @contextmanager
    def _ready(self, target: Target, batch: Batch) -> Generator[Enter]:
        found = self._places(target, batch)
        dealt = strata([place for _, _, place in found], self.scope, bits=self.bits, who=self)
        address = {place.name: (call, leaf) for call, leaf, place in found}
        replay = Replay(target, batch)

        @contextmanager
        def enter(seeds: Seeds) -> Generator[World]:
            stratum = dealt[seeds.trial % len(dealt)]
            [site] = stratum.draw(1, seeds.shared())
            call, leaf = address[site.place.name]
            samples = range(len(batch))
            elements = [i * site.place.tensor.numel() + site.element for i in samples]
            change = _flipping(leaf, elements, site.bit)
            notes = {
                "scope": self.scope,
                "stratum": stratum.name,
                "share": stratum.share,
                "flips": 1,
                "sites": [describe(site, before=None, after=None)],
            }
            with replay.changing(replay.trace.calls[call], change):
                yield World(target, batch, (Status.OK,) * len(batch), notes=notes)

        with replay.answering():
            yield enter

    def _places(self, target: Target, batch: Batch) -> list[tuple[int, int, Place]]:
        """Call number, output number and a stand-in of one sample's output, for every output."""
        chosen = self._chosen(target.module)
        one, two = (traced(target, batch, count) for count in (1, 2))
        if len(one.calls) != len(two.calls):
            raise CapabilityError(
                f"{target.name}: expected the same calls whatever the batch size, got"
                f" {len(one.calls)} and {len(two.calls)}: activations are not testable on it"
            )
        found: list[tuple[int, int, Place]] = []
        calls: dict[str, int] = {}
        for number, (single, double) in enumerate(zip(one.calls, two.calls, strict=True)):
            name = chosen.get(single.module)
            if name is None:
                continue
            calls[name] = calls.get(name, 0) + 1
            pairs = zip(single.tensors, double.tensors, strict=True)
            for leaf, ((shape, dtype), (doubled, _)) in enumerate(pairs):
                fmt = _bits.format_of(dtype)
                grows = len(shape) > 0 and doubled == (2 * shape[0], *shape[1:])
                if fmt is not None and fmt.exponent and grows and shape.numel():
                    tensor = torch.empty(shape, dtype=dtype, device="meta")
                    label = f"{name} call {calls[name]} output {leaf}"
                    found.append((number, leaf, Place(label, name, tensor, tensor, fmt)))
        if not found:
            raise CapabilityError(
                f"{self!r}: expected a module with a floating output per sample, got none"
            )
        return found

    def _chosen(self, net: nn.Module) -> dict[nn.Module, str]:
        named = dict(net.named_modules())
        leaves = {
            name
            for name, module in named.items()
            if not any(True for _ in module.children()) and not isinstance(module, _TRANSPARENT)
        }
        kept = set[str]() if self.layers else leaves
        for pattern in self.layers:
            hits = {name for name in named if fnmatchcase(name, pattern)}
            if not hits:
                raise ConfigError(f"no module named {pattern!r}; {nearest(pattern, named)}")
            kept |= hits
        return {named[name]: name for name in sorted(kept)}


def _flipping(leaf: int, elements: list[int], bit: int) -> Change:
    def change(real: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], golden: Any) -> Any:
        leaves, shape = tree_flatten(real(*args, **kwargs) if golden is None else golden)
        leaves = [value.clone() if isinstance(value, Tensor) else value for value in leaves]
        which = [i for i, value in enumerate(leaves) if isinstance(value, Tensor)][leaf]
        _bits.flip(leaves[which], elements, [bit] * len(elements))
        return tree_unflatten(leaves, shape)

    return change
