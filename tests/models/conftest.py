"""Slow arithmetic in numpy that shares nothing with the networks, and the naive fault trial."""

import copy

import numpy as np
import pytest
import torch

from palpate.faults import _bits
from palpate.targets.base import Target
from palpate.types import Batch


@pytest.fixture(autouse=True)
def _own_random_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Slow:
    """Mamba's arithmetic, one number after the other, in float64."""

    @staticmethod
    def silu(x):
        return x / (1 + np.exp(-x))

    @staticmethod
    def softplus(x):
        return np.log1p(np.exp(x))

    @staticmethod
    def rms_norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    @staticmethod
    def layer_norm(x, weight, bias):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    @classmethod
    def scan(cls, x, *, to_parts, to_step, step_bias, log_rates, skip):
        """Sequence (time, channel) through one direction's recurrence."""
        rank, states = to_step.shape[1], log_rates.shape[1]
        state, out = np.zeros(log_rates.shape), np.empty_like(x)
        for t, now in enumerate(x):
            parts = to_parts @ now
            step = cls.softplus(to_step @ parts[:rank] + step_bias)[:, None]
            write, read = parts[rank : rank + states], parts[rank + states :]
            state = np.exp(-step * np.exp(log_rates)) * state + step * now[:, None] * write
            out[t] = state @ read + skip * now
        return out

    @staticmethod
    def patches(image, weight, bias):
        """Image (channel, height, width) to an array (row, column, width) of embedded patches."""
        side = weight.shape[-1]
        rows, columns = image.shape[1] // side, image.shape[2] // side
        out = np.empty((rows, columns, len(weight)))
        for i in range(rows):
            for j in range(columns):
                patch = image[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
                out[i, j] = (weight * patch).sum((1, 2, 3)) + bias
        return out


@pytest.fixture
def slow():
    return Slow


@pytest.fixture
def randomised():
    """Every parameter of a network drawn anew, in float64, so that none is 0 or 1 by habit."""

    def make(net):
        net = net.double().eval()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                scale = (
                    0.5
                    if parameter.ndim < 2 or "A_" in name
                    else 1.5 * parameter[0].numel() ** -0.5
                )
                parameter.normal_().mul_(scale)
        return net

    return make


@pytest.fixture
def agree():
    """The notes of fault trials that differ in any bit from a deep copy with the same flips."""

    def run(fault, net, task, shape):
        names = tuple(f"s{i}" for i in range(shape[0]))
        references = torch.zeros(shape[0], dtype=torch.long)
        batch = Batch(torch.rand(shape), references, names, names, ("",) * shape[0])
        target = Target(net.eval(), task)
        inside = []
        with fault.prepared(target, batch) as enter:
            for trial in range(fault.repeats):
                with enter(fault.seeds(0).at(trial)) as world:
                    inside.append((world.target.predict(world.batch).logits, world.notes))
        return [
            notes
            for logits, notes in inside
            if not _bits.equal(logits, _flipped(target, notes).predict(batch).logits)
        ]

    return run


def _flipped(target, notes):
    net = copy.deepcopy(target.module)
    stored = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for site in notes["sites"]:
        weights = stored[site["tensor"]].detach().view(_bits.format_named(site["format"]).view)
        one = torch.ones((), dtype=weights.dtype)
        weights[tuple(site["index"])] ^= torch.bitwise_left_shift(one, site["bit"])
    return target.with_module(net)
