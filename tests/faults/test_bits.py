import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._bits import FORMATS, equal, flip, format_named, integers, plain

WIDE = [f for f in FORMATS if f.name != "bool"]
NAMES = [f.name for f in WIDE]


def codes_of(fmt, raw):
    size = torch.empty((), dtype=fmt.dtype).element_size()
    words = np.frombuffer(raw[: len(raw) // size * size], dtype=f"u{size}").copy()
    signed = torch.from_numpy(words.view(np.uint8 if size == 1 else f"i{size}"))
    return (signed.view(fmt.view) if size > 1 else signed.view(torch.uint8)).view(fmt.dtype)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    raw=st.binary(min_size=8, max_size=64),
    draws=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 63)), min_size=1, max_size=9),
)
def test_flip_twice_is_identity_for_every_pattern_and_flips_exactly_those_bits(name, raw, draws):
    fmt = format_named(name)
    codes = codes_of(fmt, raw)  # any bit pattern, so NaN payloads and infinities too
    before = codes.clone()
    sites = sorted({(element % codes.numel(), bit % fmt.width) for element, bit in draws})
    elements, bits = zip(*sites, strict=True)

    flip(codes, elements, bits)

    changed = integers(before).numpy().tobytes(), integers(codes).numpy().tobytes()
    different = [a ^ b for a, b in zip(*changed, strict=True)]
    assert sum(byte.bit_count() for byte in different) == len(sites)
    for element, bit in sites:
        assert different[element * (before.element_size()) + bit // 8] >> (bit % 8) & 1

    flip(codes, elements, bits)
    assert equal(codes, before)


@pytest.mark.parametrize(
    ("value", "bit", "expected"),
    [
        (1.0, 31, -1.0),
        (1.0, 30, float("inf")),
        (1.0, 23, 0.5),
        (1.0, 22, 1.5),
        (0.25, 30, 2.0**126),
    ],
)
def test_float32_bits_mean_what_ieee_754_says(value, bit, expected):
    codes = torch.tensor([0.0, value])
    flip(codes, [1], [bit])
    assert codes.tolist() == [0.0, expected]


def test_a_bfloat16_bit_is_that_of_the_upper_half_of_a_float32():
    values = torch.randn(50)
    short, long = values.bfloat16(), values.bfloat16().float()
    for bit in range(16):
        flip(short, range(50), [bit] * 50)
        flip(long, range(50), [bit + 16] * 50)
        assert torch.equal(torch.isnan(short.float()), torch.isnan(long))
        assert torch.equal(torch.nan_to_num(short.float()), torch.nan_to_num(long))


def test_strided_and_scalar_tensors_are_flipped_in_place():
    grid = torch.arange(12.0).reshape(3, 4)
    flip(grid.t(), [1], [31])  # row-major in the transposed view: row 1 of the original
    assert grid[1, 0] == -4
    weight = torch.ones(2, 3, 2, 2).to(memory_format=torch.channels_last)
    flip(weight, [7], [31])
    assert weight.flatten().tolist().index(-1.0) == 7
    count = torch.tensor(5)
    flip(count, [0], [1])
    assert count.item() == 7


def test_fields_of_the_formats():
    fields = {f.name: "".join(f.field(b)[0] for b in reversed(range(f.width))) for f in WIDE[:6]}
    assert fields == {
        "float64": "s" + "e" * 11 + "m" * 52,
        "float32": "s" + "e" * 8 + "m" * 23,
        "float16": "s" + "e" * 5 + "m" * 10,
        "bfloat16": "s" + "e" * 8 + "m" * 7,
        "float8_e4m3": "seeeemmm",
        "float8_e5m2": "seeeeemm",
    }
    assert format_named("float32").select("exponent") == tuple(range(23, 31))
    assert format_named("float32").select((30, 23, 40)) == (23, 30)
    assert format_named("int8").select("sign") == ()
    assert format_named("int8").field(7) == "integer"


def test_equal_sees_signed_zero_and_nan_payloads():
    nan, other = torch.tensor([float("nan")]), torch.tensor([float("nan")])
    assert equal(nan, other)
    flip(other, [0], [3])
    assert not equal(nan, other)
    assert not equal(torch.tensor([0.0]), torch.tensor([-0.0]))


def test_plain_numbers_are_json():
    values = [1.5, 3, float("nan"), float("inf"), float("-inf")]
    assert [plain(v) for v in values] == [1.5, 3, "nan", "inf", "-inf"]


def test_a_tensor_without_addressable_bits_is_refused():
    with pytest.raises(ConfigError, match="expected a tensor whose bits can be addressed"):
        flip(torch.zeros(2, dtype=torch.complex64), [0], [0])


def test_bits_outside_the_widest_format_are_refused():
    for wrong in ((32,), (-1,), (), (3, 3)):
        with pytest.raises(ConfigError, match="expected distinct bits between 0 and 31"):
            _bits.check_bits(wrong, 32, "who")
