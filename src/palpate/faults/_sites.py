"""Where a bit can live: parameters and buffers, tied tensors once, whoever owns them.

Raw parameters of composite modules (`A_logs`, class tokens, packed projections) count like any
other. The address space of a campaign is the list of its bits; every draw is uniform over it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from palpate.errors import CapabilityError, ConfigError, nearest
from palpate.faults._bits import Bits, Format, Value, check_bits, format_of
from palpate.faults._groups import groups

Scope = Literal[
    "model", "group", "layer", "module", "tensor", "bit", "field", "group_field", "layer_field"
]
"""`module` is another word for `layer`."""


_SHUFFLED: Final = 4096  # below this a permutation is cheap, and draws may take all of it


class Place(NamedTuple):
    """One stored tensor.

    Attributes:
        name: as in `named_parameters` and `named_buffers`.
        layer: path of the module that owns it, empty for the root.
        tensor: what the model computes with.
        codes: what is stored; the tensor itself unless a storage format was asked for.
        format: of the codes.
        scale: real value of one unit of the codes, broadcastable; None for 1.
        group: role in the network; see `_groups`.
    """

    name: str
    layer: str
    tensor: Tensor
    codes: Tensor
    format: Format
    scale: Tensor | None = None
    group: str = ""


class FaultSite(NamedTuple):
    """One bit of the stored memory: tensor, flat (row-major) element number, bit."""

    place: Place
    element: int
    bit: int


class Span(NamedTuple):
    """Some bits of every element of one tensor."""

    place: Place
    bits: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of addressable bits."""
        return self.place.codes.numel() * len(self.bits)


@dataclass(frozen=True)
class Stratum:
    """Bits that trials are dealt to together, and their share of the whole population."""

    name: str
    spans: tuple[Span, ...]
    share: float

    @cached_property
    def starts(self) -> "np.ndarray[Any, Any]":
        """Address of the first bit of every span, and the end."""
        return np.cumsum([0, *(span.size for span in self.spans)])

    @property
    def size(self) -> int:
        """Number of addressable bits."""
        return int(self.starts[-1])

    def draw(self, flips: int, seed: int) -> list[FaultSite]:
        """Distinct bits, uniform over the stratum, in the order of the address space.

        Nested: fewer flips from the same seed are some of these.
        """
        return self.at(np.sort(distinct_below(self.size, flips, seed)))

    def at(self, addresses: "np.ndarray[Any, Any] | Sequence[int]") -> list[FaultSite]:
        """The sites of sorted or unsorted addresses, 0 to size - 1."""
        which = np.searchsorted(self.starts, np.asarray(addresses), side="right") - 1
        offsets = np.asarray(addresses) - self.starts[which]
        sites: list[FaultSite] = []
        for span_number, offset in zip(which.tolist(), offsets.tolist(), strict=True):
            place, bits = self.spans[span_number]
            element, bit = divmod(offset, len(bits))
            sites.append(FaultSite(place, element, bits[bit]))
        return sites


def describe(site: FaultSite, *, before: Value | None, after: Value | None) -> dict[str, Any]:
    """One site as plain data; the values are None where every sample has its own."""
    place = site.place
    return {
        "tensor": place.name,
        "layer": place.layer,
        "group": place.group,
        "index": [int(i) for i in np.unravel_index(site.element, tuple(place.tensor.shape))],
        "bit": site.bit,
        "field": place.format.field(site.bit),
        "part": place.format.part(site.bit),
        "format": place.format.name,
        "before": before,
        "after": after,
    }


def places(module: nn.Module, tensors: Sequence[str] = ()) -> list[Place]:
    """Every stored tensor of a module, tied ones once, under the first name.

    Args:
        module: the network.
        tensors: tensor names, module paths or glob patterns to keep; empty for all.

    Raises:
        CapabilityError: the module stores nothing whose bits can be addressed.
        ConfigError: a pattern matches nothing (the nearest names are in the message).
    """
    seen: set[tuple[object, ...]] = set()
    found: list[Place] = []
    roles = groups(module)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        fmt = format_of(tensor.dtype)
        if fmt is None or not tensor.numel() or tensor.is_meta:
            continue
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key not in seen:
            seen.add(key)
            layer = name.rpartition(".")[0]
            found.append(Place(name, layer, tensor, tensor, fmt, group=roles[name]))
    if not found:
        raise CapabilityError(
            f"expected a model whose weights can be reached, got {type(module).__name__} without"
            " parameters or buffers: not testable on this target"
        )
    return _matching(found, tensors) if tensors else found


def strata(found: Sequence[Place], scope: Scope, *, bits: Bits, who: object) -> list[Stratum]:
    """Group the chosen bits: all in one, or one group per layer, tensor or bit position.

    Raises:
        ConfigError: bits outside every format, or a field that no tensor has.
    """
    # a counter of 64 bits, as batch norms keep, does not make bit 40 of a float
    numbers = [place for place in found if place.format.exponent] or found
    check_bits(bits, max(place.format.width for place in numbers), who)
    spans = [Span(place, chosen) for place in found if (chosen := place.format.select(bits))]
    if not spans:
        formats = sorted({place.format.name for place in found})
        raise ConfigError(f"{who!r}: expected a tensor with {bits} bits, got only {formats}")
    groups: dict[str, list[Span]] = {}
    for span in spans:
        for name, part in _parts(span, scope):
            groups.setdefault(name, []).append(part)
    total = sum(span.size for span in spans)
    return [
        Stratum(name, tuple(parts), sum(part.size for part in parts) / total)
        for name, parts in groups.items()
    ]


def population(dealt: Sequence[Stratum]) -> list[dict[str, Any]]:
    """Addressable bits of every tensor, as plain data, in the order of the address space."""
    found: dict[str, dict[str, Any]] = {}
    for span in (span for stratum in dealt for span in stratum.spans):
        place = span.place
        words = {"tensor": place.name, "layer": place.layer, "group": place.group}
        numbers = {"elements": place.codes.numel(), "bits": 0, "parts": {}}
        entry = found.setdefault(place.name, {**words, **numbers})
        entry["bits"] += span.size
        for part in map(place.format.part, span.bits):
            entry["parts"][part] = entry["parts"].get(part, 0) + place.codes.numel()
    return list(found.values())


def _parts(span: Span, scope: Scope) -> Iterator[tuple[str, Span]]:
    """The strata that a tensor's chosen bits fall into."""
    place = span.place
    owner = {"group": place.group, "layer": place.layer, "module": place.layer}
    owner["tensor"] = place.name
    if scope == "bit":
        for bit in span.bits:
            yield f"{place.format.name} bit {bit}", Span(place, (bit,))
    elif scope == "field" or scope.endswith("_field"):
        whose = owner.get(scope.removesuffix("_field"), place.format.name)
        parts: dict[str, list[int]] = {}
        for bit in span.bits:
            parts.setdefault(place.format.part(bit), []).append(bit)
        for part, bits in parts.items():
            yield f"{whose} {part}".strip(), Span(place, tuple(bits))
    else:
        yield owner.get(scope, "model"), span


def distinct_below(size: int, count: int, seed: int | list[int]) -> "np.ndarray[Any, Any]":
    """The first `count` distinct numbers below `size` in a stream of uniform ones."""
    rng = np.random.default_rng(seed)
    if size <= _SHUFFLED:
        return rng.permutation(size)[:count]
    kept = rng.integers(size, size=count)
    while True:  # the stream is one, however it is cut
        if count > 1:
            kept = kept[np.sort(np.unique(kept, return_index=True)[1])]
        if len(kept) >= count:
            return kept[:count]
        kept = np.concatenate([kept, rng.integers(size, size=count)])


def _matching(found: list[Place], tensors: Sequence[str]) -> list[Place]:
    kept: set[str] = set()
    for pattern in tensors:
        hits = {
            place.name
            for place in found
            if fnmatchcase(place.name, pattern) or place.name.startswith(f"{pattern}.")
        }
        if not hits:
            known = {p.name for p in found} | {p.layer for p in found if p.layer}
            raise ConfigError(f"no tensor or module named {pattern!r}; {nearest(pattern, known)}")
        kept |= hits
    return [place for place in found if place.name in kept]
