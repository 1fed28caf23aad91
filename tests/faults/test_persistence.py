"""Permanent faults and other formats of activation buffers."""

import pytest
import torch
from torch import nn

from palpate.faults import _bits
from palpate.faults.activation_bit_flip import ActivationBitFlip


class Twice(nn.Module):
    """One layer called twice; the second call's output is narrower."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.head = nn.Linear(3, 10)

    def forward(self, x):
        return self.head(self.conv(self.conv(x).relu()).mean(dim=(2, 3)))


def worlds(fault, target, batch):
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        for trial in range(fault.repeats):
            with enter(seeds.at(trial)) as world:
                yield world.notes["sites"][0], world.target.predict(world.batch).logits


def by_hook(target, batch, site, flip, calls):
    """Logits when a forward hook flips the element in every call that `calls` accepts."""
    count = 0

    def hook(module, args, output):
        nonlocal count
        count += 1
        rows = output.clone().flatten(1)
        element = element_of(site)
        if calls(count) and element < rows.shape[1]:
            rows[:, element] = flip(rows, element, site["bit"])
        return rows.reshape(output.shape)

    handle = target.module.conv.register_forward_hook(hook)
    try:
        return target.predict(batch).logits
    finally:
        handle.remove()


def element_of(site):
    side = 6 if "call 1" in site["tensor"] else 4
    index = site["index"][-3:]
    return (index[0] * side + index[1]) * side + index[2]


def native(rows, element, bit):
    values = rows[:, element].clone()
    _bits.flip(values, range(len(values)), [bit] * len(values))
    return values


@pytest.mark.parametrize(
    ("persistence", "calls"),
    [("transient", lambda number, own: number == own), ("permanent", lambda number, own: True)],
)
def test_calls_that_are_hit(wrap, persistence, calls):
    torch.manual_seed(0)
    target, batch = wrap(Twice(), (2, 3, 8, 8))
    fault = ActivationBitFlip(trials=40, layers=("conv",), persistence=persistence)
    seen = set()
    for site, logits in list(worlds(fault, target, batch)):
        own = 1 if "call 1" in site["tensor"] else 2
        seen.add(own)
        expected = by_hook(target, batch, site, native, lambda n, own=own: calls(n, own))
        assert _bits.equal(logits, expected)
    assert seen == {1, 2}


def int8(rows, element, bit):
    scale = rows.abs().amax(dim=1) / 127
    codes = (rows[:, element] / scale).round().to(torch.int8)
    flipped = codes ^ torch.tensor(1 << bit if bit < 7 else -128, dtype=torch.int8)
    return flipped.float() * scale


def half(rows, element, bit):
    codes = rows[:, element].half().view(torch.int16)
    mask = 1 << bit if bit < 15 else -(1 << 15)
    return (codes ^ torch.tensor(mask, dtype=torch.int16)).view(torch.float16).float()


@pytest.mark.parametrize(("name", "flip"), [("int8", int8), ("float16", half)])
def test_buffers_of_fewer_bits(wrap, name, flip):
    torch.manual_seed(0)
    target, batch = wrap(Twice(), (2, 3, 8, 8))
    fault = ActivationBitFlip(trials=30, layers=("conv",), format=name)
    for site, logits in list(worlds(fault, target, batch)):
        assert site["format"] == name
        own = 1 if "call 1" in site["tensor"] else 2
        expected = by_hook(target, batch, site, flip, lambda n, own=own: n == own)
        torch.testing.assert_close(logits, expected, equal_nan=True, rtol=1e-6, atol=1e-6)
