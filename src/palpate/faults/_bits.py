"""Bits of stored numbers: integer views, the field of a bit, exact flips.

A float is handled as the integer of the same width, so that a flip is an XOR: exact, its own
inverse, and harmless to NaN payloads. Bit 0 is the least significant one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from palpate.errors import ConfigError

Field = Literal["sign", "exponent", "mantissa", "integer"]
Bits = Literal["all", "sign", "exponent", "mantissa"] | tuple[int, ...]
Value = int | float | str


@dataclass(frozen=True, slots=True)
class Format:
    """How one number is stored.

    Attributes:
        name: as in the audit file and the record.
        dtype: of the tensor that holds the codes.
        view: integer dtype of the same width, which XOR works on.
        width: bits that carry meaning, from bit 0 up.
        exponent: width of the exponent field, 0 for integers.
    """

    name: str
    dtype: torch.dtype
    view: torch.dtype
    width: int
    exponent: int = 0

    def field(self, bit: int) -> Field:
        """Which field of the number the bit belongs to."""
        if not self.exponent:
            return "integer"
        if bit == self.width - 1:
            return "sign"
        return "exponent" if bit >= self.width - 1 - self.exponent else "mantissa"

    def part(self, bit: int) -> str:
        """The field, with the top exponent bit apart: it differs most in what its flip does."""
        is_top = self.exponent > 0 and bit == self.width - 2
        return "top exponent bit" if is_top else self.field(bit)

    def select(self, bits: Bits) -> tuple[int, ...]:
        """Positions, lowest first, that a choice of bits means in this format; maybe none."""
        if bits == "all":
            return tuple(range(self.width))
        if isinstance(bits, str):
            return tuple(b for b in range(self.width) if self.field(b) == bits)
        return tuple(sorted({b for b in bits if 0 <= b < self.width}))


FORMATS: Final[tuple[Format, ...]] = (
    Format("float64", torch.float64, torch.int64, 64, 11),
    Format("float32", torch.float32, torch.int32, 32, 8),
    Format("float16", torch.float16, torch.int16, 16, 5),
    Format("bfloat16", torch.bfloat16, torch.int16, 16, 8),
    Format("float8_e4m3", torch.float8_e4m3fn, torch.uint8, 8, 4),
    Format("float8_e5m2", torch.float8_e5m2, torch.uint8, 8, 5),
    Format("int64", torch.int64, torch.int64, 64),
    Format("int32", torch.int32, torch.int32, 32),
    Format("int16", torch.int16, torch.int16, 16),
    Format("uint16", torch.uint16, torch.int16, 16),
    Format("int8", torch.int8, torch.int8, 8),
    Format("uint8", torch.uint8, torch.uint8, 8),
    # a bool is stored as a byte of value 0 or 1; its other seven bits are no legal state
    Format("bool", torch.bool, torch.uint8, 1),
)


def format_of(dtype: torch.dtype) -> Format | None:
    """The format that a tensor of this dtype stores, or None if its bits are not supported."""
    return next((f for f in FORMATS if f.dtype == dtype), None)


def format_named(name: str) -> Format:
    """The format of that name."""
    return next(f for f in FORMATS if f.name == name)


def check_bits(bits: Bits, width: int, who: object) -> None:
    """Refuse bit positions that no number of the widest format has.

    Raises:
        ConfigError: empty, repeated, or outside 0 to width - 1.
    """
    if isinstance(bits, str):
        return
    if not bits or len(set(bits)) != len(bits) or not all(0 <= b < width for b in bits):
        raise ConfigError(
            f"{who!r}: expected distinct bits between 0 and {width - 1}, got {list(bits)}"
        )


class Toggle:
    """Distinct bits of one tensor that flip in place; twice is the identity.

    Args:
        codes: any shape and strides, of a dtype in `FORMATS`.
        elements: flat (row-major) element numbers; an element may occur several times.
        bits: one bit position per entry of `elements`; a pair may occur only once.
    """

    def __init__(self, codes: Tensor, elements: Sequence[int], bits: Sequence[int]) -> None:
        masks: dict[int, int] = {}
        for element, bit in zip(elements, bits, strict=True):
            masks[element] = masks.get(element, 0) ^ (1 << bit)
        width = 8 * codes.element_size()
        self._stored = integers(codes)
        signed = self._stored.dtype.is_signed
        values = [m - (1 << width) if signed and m >> (width - 1) else m for m in masks.values()]
        self._masks = torch.tensor(values, dtype=self._stored.dtype, device=codes.device)
        self._where = position(list(masks), codes)

    def __call__(self) -> None:
        """Flip, or flip back."""
        self._stored[self._where] = self._stored[self._where] ^ self._masks


def flip(codes: Tensor, elements: Sequence[int], bits: Sequence[int]) -> None:
    """Flip bits in place once; the same call again restores them exactly (see `Toggle`)."""
    Toggle(codes, elements, bits)()


def integers(codes: Tensor) -> Tensor:
    """The same memory seen as integers of the same width (shares storage, any strides)."""
    fmt = format_of(codes.dtype)
    if fmt is None:
        raise ConfigError(f"expected a tensor whose bits can be addressed, got {codes.dtype}")
    return codes.detach().view(fmt.view)


def position(elements: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """Index of flat element numbers in a tensor of any strides, on its device."""
    if like.ndim == 0:
        return ()
    index = np.unravel_index(np.asarray(elements, dtype=np.int64), tuple(like.shape))
    return tuple(torch.from_numpy(np.array(axis)).to(like.device) for axis in index)


def equal(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and every bit (0.0 is not -0.0, NaN may agree)."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if format_of(first.dtype) is None:
        return torch.equal(first, second)
    return torch.equal(integers(first), integers(second))


def plain(value: float) -> Value:
    """A number as JSON can hold it: non-finite ones become "nan", "inf" or "-inf"."""
    return value if isinstance(value, int) or math.isfinite(value) else str(value)
