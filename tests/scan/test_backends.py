"""Every backend against the float64 reference, and what they all promise.

A backend for GPUs runs where there is one. `test_triton` runs this file once more in Triton's
interpreter, which takes about 10 ms for a step: sizes are smaller there.
"""

import os

import pytest
import torch

from palpate.scan import selective_scan
from palpate.scan.base import backends, load_backend

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def sized(full, small):
    return small if INTERPRETED else full


SHAPES = sized(
    ((2, 4, 16, 49, 16), (3, 2, 5, 130, 3), (1, 1, 40, 65, 16), (2, 3, 7, 1, 1)),
    ((2, 4, 16, 3, 16), (3, 2, 5, 4, 3), (1, 1, 40, 10, 16), (2, 3, 7, 1, 1)),
)


def arguments(batch, groups, width, length, states, *, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    channels = groups * width
    return {
        "u": draw(batch, channels, length),
        "delta": draw(batch, channels, length) - 1,
        "A": -torch.arange(1, states + 1, dtype=dtype).repeat(channels, 1),
        "B": draw(batch, groups, states, length),
        "C": draw(batch, groups, states, length),
        "D": draw(channels),
        "delta_bias": draw(channels) - 2,
    }


def device(backend):
    """Where a backend can run here: cpu, cuda or None."""
    cuda = ("cuda",) if torch.cuda.is_available() else ()
    usable = load_backend(backend).usable
    return next((d for d in ("cpu", *cuda) if usable(torch.zeros(1, device=d))), None)


def placed(given, backend):
    return {name: tensor.to(device(backend)) for name, tensor in given.items()}


def run(given, backend, *, wanted=NAMES, **options):
    """Output, and the gradient of a weighted sum of it for each of `wanted`."""
    there = placed(given, backend)
    leaves = {name: t.detach().clone().requires_grad_(name in wanted) for name, t in there.items()}
    y = selective_scan(**leaves, backend=backend, **options)
    weight = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y).to(y.device)
    sources = [leaves[name] for name in wanted if name in leaves]
    gradients = torch.autograd.grad((y * weight).sum(), sources)
    found = {
        "y": y.detach(),
        **dict(zip((n for n in wanted if n in leaves), gradients, strict=True)),
    }
    return {name: tensor.cpu() for name, tensor in found.items()}


@pytest.fixture(params=backends())
def backend(request):
    if device(request.param) is None:
        pytest.skip(f"{request.param} cannot run here")
    return request.param


@pytest.fixture
def ordered(backend):
    """A backend that adds in a fixed order and spreads NaN as the reference does."""
    if backend == "mamba_ssm":
        pytest.skip("parallel scan and atomics")
    return backend


def assert_close(found, expected, tolerance=1e-5):
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-12)
        assert error < tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_agree_with_float64(backend, shape):
    given = arguments(*shape)
    expected = run({n: t.double() for n, t in given.items()}, "reference")
    assert_close(run(given, backend), expected)


@pytest.mark.parametrize("absent", ["D", "delta_bias"])
def test_optional_arguments(backend, absent):
    given = arguments(2, 2, 3, sized(20, 3), 4)
    del given[absent]
    expected = run({n: t.double() for n, t in given.items()}, "reference")
    assert_close(run(given, backend), expected)


def test_without_softplus(backend):
    given = arguments(2, 2, 3, sized(20, 3), 4)
    given["delta"], given["delta_bias"] = given["delta"].abs(), given["delta_bias"].abs()
    expected = run({n: t.double() for n, t in given.items()}, "reference", delta_softplus=False)
    assert_close(run(given, backend, delta_softplus=False), expected)


def test_large_step_is_linear_as_in_torch(backend):
    given = arguments(1, 1, 2, 6, 2)
    given["delta"] = torch.full_like(given["delta"], 25.0)
    expected = run({n: t.double() for n, t in given.items()}, "reference")
    assert_close(run(given, backend), expected)


@pytest.mark.parametrize("name", ["reference", "chunked"])
def test_gradcheck(name):
    given = arguments(2, 2, 3, 35, 2, dtype=torch.float64)

    def scan(*values):
        return selective_scan(*values[:6], delta_bias=values[6], backend=name)

    inputs = [tensor.requires_grad_() for tensor in given.values()]
    assert torch.autograd.gradcheck(scan, inputs, fast_mode=True)


def test_reference_has_second_derivatives():
    given = arguments(1, 1, 2, 4, 2, dtype=torch.float64)

    def scan(*values):
        return selective_scan(*values[:6], delta_bias=values[6], backend="reference")

    inputs = [tensor.requires_grad_() for tensor in given.values()]
    assert torch.autograd.gradgradcheck(scan, inputs, fast_mode=True)


def test_frozen_parameters_change_nothing(ordered):
    given, inputs = arguments(2, 2, 16, sized(40, 5), 4), ("u", "delta", "B", "C")
    every, some = run(given, ordered), run(given, ordered, wanted=inputs)
    for name in ("y", *inputs):
        assert torch.equal(every[name], some[name])


def test_without_gradients(backend):
    given = placed(arguments(2, 2, 16, sized(40, 5), 4), backend)
    given = {name: tensor.requires_grad_() for name, tensor in given.items()}
    expected = selective_scan(**given, backend=backend)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y = selective_scan(**given, backend=backend)
        assert not y.requires_grad
        assert torch.equal(y, expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_sample_does_not_depend_on_its_batch(ordered, batch):
    # Of whole SIMD vectors: torch's own softplus rounds the last few values in another way.
    backend, length, shared = ordered, sized(72, 4), ("A", "D", "delta_bias")
    whole = placed(arguments(*sized((7, 2, 20), (5, 1, 40)), length, 16), backend)
    part = {name: t if name in shared else t[2 : 2 + batch] for name, t in whole.items()}
    weights = torch.arange(whole["u"].numel(), dtype=torch.float32).cos()
    weights, results = weights.view_as(whole["u"]).to(whole["u"].device), []
    for given, weight in ((whole, weights), (part, weights[2 : 2 + batch])):
        leaves = {n: given[n].clone().requires_grad_() for n in given if n not in shared}
        y = selective_scan(**{**given, **leaves}, backend=backend)
        results.append((y, *torch.autograd.grad((y * weight).sum(), list(leaves.values()))))
    (all_y, *all_grads), (y, *grads) = results
    assert torch.equal(all_y[2 : 2 + batch], y)
    # Autograd of the reference sums over states with kernels that are chosen by size.
    tolerance = 1e-6 if backend == "reference" else 0.0
    for all_grad, grad in zip(all_grads, grads, strict=True):
        assert torch.allclose(all_grad[2 : 2 + batch], grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45])
@pytest.mark.parametrize("name", NAMES)
def test_broken_values_spread_as_in_the_reference(ordered, name, value):
    given = arguments(*sized((2, 2, 5, 40, 3), (2, 1, 5, 3, 3)))
    given[name].view(-1)[given[name].numel() // 2] = value
    expected, found = run(given, "reference"), run(given, ordered)
    for key in ("y", "u", "delta", "D", "C"):
        assert torch.equal(expected[key].isfinite(), found[key].isfinite()), key
        ok = expected[key].isfinite()
        assert torch.allclose(expected[key][ok], found[key][ok], rtol=1e-3, atol=1e-4), key
    assert torch.equal(expected["y"].isnan(), found["y"].isnan())


def test_runs_and_threads_give_the_same_bits(ordered):
    given = arguments(*sized((3, 4, 24, 100, 16), (2, 1, 24, 2, 16)))
    threads = torch.get_num_threads()
    first = run(given, ordered)
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            again = run(given, ordered)
            for name in ("y", "u", "delta", "B", "C"):
                assert torch.equal(first[name], again[name]), name
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["auto", "chunked"])
def test_reduced_precision_is_widened_inside(name):
    given = arguments(1, 2, 4, 30, 4)
    half = {n: t.bfloat16() if n in ("u", "delta", "B", "C") else t for n, t in given.items()}
    y = selective_scan(**half, backend=name)
    assert y.dtype == torch.bfloat16
    expected = selective_scan(**{n: t.float() for n, t in half.items()}, backend="reference")
    assert torch.allclose(y.float(), expected, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            selective_scan(**given, backend=name), selective_scan(**given, backend=name)
        )
        assert torch.allclose(
            selective_scan(**given, backend=name),
            selective_scan(**given, backend="reference"),
            atol=1e-5,
        )


def test_empty_batch(backend):
    given = arguments(1, 2, 4, 5, 3)
    empty = {n: t[:0] if n in ("u", "delta", "B", "C") else t for n, t in given.items()}
    empty = placed(empty, backend)
    assert selective_scan(**empty, backend=backend).shape == (0, 8, 5)


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match="auto, chunked, cpp, .*reference, .*; got 'fast'"):
        selective_scan(**arguments(1, 1, 1, 1, 1), backend="fast")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 6, 9), r"expected delta of shape \(2, 6, 8\)"),
        ("A", (5, 4), r"expected A of shape \(6, 4\)|groups that divide"),
        ("C", (2, 3, 4, 8), r"expected C of shape \(2, 2, 4, 8\)"),
        ("D", (3,), r"expected D of shape \(6,\)"),
        ("u", (2, 6), "expected u \\(batch, channels, length\\)"),
        ("u", (2, 6, 0), "expected non-empty channels"),
        ("B", (2, 4, 4, 8), "groups that divide channels"),
    ],
)
def test_wrong_shapes_are_named(name, shape, message):
    given = {**arguments(2, 2, 3, 8, 4), name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=message):
        selective_scan(**given)
