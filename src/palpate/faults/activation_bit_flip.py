"""A bit flips in what one module hands on: a fault in an activation buffer."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from palpate.errors import CapabilityError, ConfigError, nearest
from palpate.faults import _bits
from palpate.faults._dealt import Dealing, DealtFault
from palpate.faults._groups import groups
from palpate.faults._replay import Replay, is_compiled
from palpate.faults._sites import FaultSite, Place, Scope, describe, places, strata
from palpate.faults._storage import decoded, encoded, scale_of
from palpate.faults._trace import Forward, traced
from palpate.faults._trial import Change
from palpate.outcome import Status
from palpate.perturbation import World
from palpate.targets.base import Target
from palpate.types import Batch

BufferFormat = Literal["stored", "float16", "bfloat16", "float8_e4m3", "float8_e5m2", "int8"]

_WIDEST = 64
# they hand on their input and own no memory of their own
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.Flatten)


@final
@dataclass(frozen=True)
class ActivationBitFlip(DealtFault):
    """One bit of one element of one module's output flips, in every sample at the same place.

    Every sample is its own experiment. The element, the bit and the call depend on the seed and the
    trial alone. Modules without children count; a module whose output has no axis that grows with
    the batch does not.

    Attributes:
        bits: `all`, one field of a floating number, or bit positions (0 is the lowest).
        scope: `model` draws uniformly over all activation bits; `layer` or `module`, `group`,
            `tensor` (one output of one call), `bit`, `field`, `group_field` and `layer_field` deal
            the trials in turn; see `weight_bit_flip`.
        persistence: `transient` flips in one call; `permanent` in every call of the module, as a
            bad cell of its output buffer does (calls whose output has no such element are spared).
        format: what the buffer holds: `stored` for the format that the model computes in, or one of
            fewer bits; the element that is hit is then written to the buffer in that format and
            read back. int8 and float8 have one scale per sample, from the largest value.
        layers: module paths or glob patterns to draw from, also of modules with children; empty
            for all modules without children.
    """

    version: ClassVar[int] = 2

    bits: _bits.Bits = "all"
    scope: Scope = "layer"
    persistence: Literal["transient", "permanent"] = "transient"
    format: BufferFormat = "stored"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"activation_bit_flip: expected at least 1 trial, got {self.trials}")
        self._check_margin()

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
    def _dealing(self, target: Target, batch: Batch) -> Generator[Dealing]:
        found = self._places(target, batch)
        dealt = strata([place for _, _, place in found], self.scope, bits=self.bits, who=self)
        address = {place.name: (call, leaf) for call, leaf, place in found}
        replay = Replay(target, batch)

        @contextmanager
        def enter(drawn: list[FaultSite], notes: dict[str, Any]) -> Generator[World]:
            [site] = drawn
            number, leaf = address[site.place.name]
            call = replay.trace.calls[number]
            hit = [call]
            if self.persistence == "permanent":
                hit = [c for c in replay.trace.calls if c.module is call.module]
            full = {**notes, "flips": 1, "sites": [describe(site, before=None, after=None)]}
            with replay.changing(hit, _flipping(leaf, site, len(batch))):
                yield World(target, batch, (Status.OK,) * len(batch), notes=full)

        with replay.answering():
            yield Dealing(dealt, enter)

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
        roles = groups(target.module)
        calls: dict[str, int] = {}
        for number, (single, double) in enumerate(zip(one.calls, two.calls, strict=True)):
            name = chosen.get(single.module)
            if name is None:
                continue
            calls[name] = calls.get(name, 0) + 1
            pairs = zip(single.tensors, double.tensors, strict=True)
            for leaf, ((shape, dtype), (doubled, _)) in enumerate(pairs):
                fmt = self._buffer(_bits.format_of(dtype), name)
                grows = len(shape) > 0 and doubled == (2 * shape[0], *shape[1:])
                if fmt is not None and dtype.is_floating_point and grows and shape.numel():
                    tensor = torch.empty(shape, dtype=dtype, device="meta")
                    label = f"{name} call {calls[name]} output {leaf}"
                    found.append(
                        (number, leaf, Place(label, name, tensor, tensor, fmt, group=roles[name]))
                    )
        if not found:
            raise CapabilityError(
                f"{self!r}: expected a module with a floating output per sample, got none"
            )
        return found

    def _buffer(self, fmt: _bits.Format | None, layer: str) -> _bits.Format | None:
        if fmt is None or not fmt.exponent or self.format == "stored":
            return fmt
        buffer = _bits.format_named(self.format)
        if buffer.width > fmt.width:
            raise ConfigError(
                f"{self!r}: expected outputs of {layer} that {buffer.name} can hold, got {fmt.name}"
            )
        return buffer

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


def _flipping(leaf: int, site: FaultSite, samples: int) -> Change:
    def change(real: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], golden: Any) -> Any:
        leaves, shape = tree_flatten(real(*args, **kwargs) if golden is None else golden)
        leaves = [value.clone() if isinstance(value, Tensor) else value for value in leaves]
        which = [i for i, value in enumerate(leaves) if isinstance(value, Tensor)]
        if leaf < len(which) and len(leaves[which[leaf]]) == samples:
            _flip(leaves[which[leaf]], site)
        return tree_unflatten(leaves, shape)

    return change


def _flip(output: Tensor, site: FaultSite) -> None:
    """Flip one bit of one element of every sample, in the format of the buffer."""
    rows = output.reshape(len(output), -1)
    if site.element >= rows.shape[1]:
        return
    fmt, values = site.place.format, rows[:, site.element].clone()
    numbers, bits = range(len(values)), [site.bit] * len(values)
    if fmt.dtype == output.dtype:
        _bits.flip(values, numbers, bits)
    else:
        scale = scale_of(rows, fmt, per_channel=True)
        codes = encoded(values, None if scale is None else scale[:, 0], fmt)
        _bits.flip(codes, numbers, bits)
        values = decoded(codes, None if scale is None else scale[:, 0], output)
    elements = [i * rows.shape[1] + site.element for i in numbers]
    output[_bits.position(elements, output)] = values
