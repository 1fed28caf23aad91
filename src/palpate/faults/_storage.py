"""Weights as deployed: stored in one format, computed in another.

======== ==================================== ======= =====================================
code     meaning                              symbol  source
======== ==================================== ======= =====================================
codes    what the memory holds                q       Jacob et al. 2018, arXiv 1712.05877
scale    real value of one unit               S       ibid., eq. 1 with zero point Z = 0
peak     largest code of the format           -       127, or the largest finite float8
======== ==================================== ======= =====================================

float16 and bfloat16 hold every floating tensor. int8 (symmetric, one scale per tensor or per output
channel) and float8 (one scale per tensor, Micikevicius et al. 2022, arXiv 2209.05433) hold the
weights, that is parameters with two or more axes; norms, biases and buffers stay as they are.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import torch
from torch import Tensor, nn

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._sites import FaultSite, Place

StorageFormat = Literal[
    "stored",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3",
    "float8_e5m2",
    "int8",
    "int8_per_channel",
]

_SCALED: Final = ("float8_e4m3", "float8_e5m2", "int8")
_INT8_PEAK: Final = 127.0  # symmetric: the code -128 is never written, but a flip can make it


def stored(place: Place, format_name: StorageFormat) -> Place:
    """The same tensor with codes of a storage format; the tensor itself is not touched.

    Raises:
        ConfigError: the tensor is stored in fewer bits already, or has values out of range.
    """
    fmt = _bits.format_named(format_name.removesuffix("_per_channel"))
    is_weight = isinstance(place.tensor, nn.Parameter) and place.tensor.ndim >= 2
    if not place.format.exponent or fmt == place.format or (fmt.name in _SCALED and not is_weight):
        return place
    if place.format.width <= fmt.width:
        raise ConfigError(
            f"{place.name}: expected a tensor that {fmt.name} can hold, got {place.format.name}"
        )
    values = place.tensor.detach()
    scale = scale_of(values, fmt, per_channel=format_name.endswith("_per_channel"))
    codes = encoded(values, scale, fmt)
    if not bool((torch.isfinite(codes.float()) | ~torch.isfinite(values)).all()):
        raise ConfigError(
            f"{place.name}: expected values that {fmt.name} can hold, got"
            f" {float(values.abs().max()):g} in magnitude"
        )
    return place._replace(codes=codes, format=fmt, scale=scale)


def stored_all(found: Sequence[Place], format_name: StorageFormat) -> list[Place]:
    """Every tensor with codes of a storage format; see `stored`."""
    if format_name == "stored":
        return list(found)
    return [stored(place, format_name) for place in found]


@contextmanager
def deployed(places: Sequence[Place]) -> Generator[None]:
    """Let the model compute with what the codes say; the exact old values return on leaving."""
    recoded = [place for place in places if place.codes is not place.tensor]
    before = [place.tensor.detach().clone() for place in recoded]
    try:
        for place in recoded:
            place.tensor.detach().copy_(decoded(place.codes, place.scale, place.tensor))
        yield
    finally:
        for place, values in zip(recoded, before, strict=True):
            _bits.integers(place.tensor).copy_(_bits.integers(values))


class Flips:
    """Distinct bits of the stored memory that flip together; `toggle` twice is the identity."""

    def __init__(self, sites: Sequence[FaultSite]) -> None:
        self.by_place: dict[str, tuple[Place, list[int], list[int]]] = {}
        for place, element, bit in sites:
            _, elements, bits = self.by_place.setdefault(place.name, (place, [], []))
            elements.append(element)
            bits.append(bit)
        self._toggles = {
            name: _bits.Toggle(place.codes, elements, bits)
            for name, (place, elements, bits) in self.by_place.items()
        }

    @property
    def places(self) -> list[Place]:
        """The tensors touched."""
        return [place for place, _, _ in self.by_place.values()]

    def toggle(self) -> None:
        """Flip every bit in place, and let the model see it."""
        for name, (place, elements, _) in self.by_place.items():
            self._toggles[name]()
            if place.codes is not place.tensor:
                refresh(place, elements)

    @contextmanager
    def flipped(self) -> Generator[None]:
        """The flipped memory; as it was on leaving, also after an exception."""
        self.toggle()
        try:
            yield
        finally:
            self.toggle()


def refresh(place: Place, elements: Sequence[int]) -> None:
    """Decode some elements of the codes into the tensor that the model computes with."""
    where = _bits.position(elements, place.codes)
    scale = place.scale
    if scale is not None and scale.numel() > 1:
        scale = scale.expand(place.codes.shape)[where]
    place.tensor.detach()[where] = decoded(place.codes[where], scale, place.tensor)


def value(place: Place, element: int) -> _bits.Value:
    """What the model computes with at one element, as JSON can hold it."""
    where = _bits.position([element], place.tensor)
    return _bits.plain(place.tensor.detach()[where].reshape(()).item())


def encoded(values: Tensor, scale: Tensor | None, fmt: _bits.Format) -> Tensor:
    """Codes of values, rounded to the nearest."""
    scaled = values if scale is None else values / scale
    return scaled.to(fmt.dtype) if fmt.exponent else scaled.round().to(fmt.dtype)


def decoded(codes: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """Values that the codes stand for, in the dtype that the model computes with."""
    values = codes.to(like.dtype)
    return values if scale is None else values * scale.to(like.dtype)


def scale_of(values: Tensor, fmt: _bits.Format, *, per_channel: bool) -> Tensor | None:
    """Real value of one unit of the codes, so that the largest value fits; None for 1.

    Args:
        values: any shape.
        fmt: of the codes.
        per_channel: one scale for each entry of the first axis instead of one for all.
    """
    if fmt.name not in _SCALED:
        return None
    peak = torch.finfo(fmt.dtype).max if fmt.exponent else _INT8_PEAK
    axes = tuple(range(1, values.ndim)) if per_channel else tuple(range(values.ndim))
    largest = values.abs().amax(dim=axes, keepdim=True)
    return torch.where(largest > 0, largest / peak, torch.ones_like(largest))
