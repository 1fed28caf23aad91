# ruff: noqa: N803 - the symbols of the paper
"""The package's scan, with a stand-in for the package that has its signature and its checks."""

import importlib.machinery
import sys
import types

import pytest
import torch

from palpate.scan import _probe, selective_scan
from palpate.scan.base import load_backend

INTERFACE = "mamba_ssm.ops.selective_scan_interface"


def selective_scan_fn(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    cu_seqlens=None,
):
    """Signature of mamba_ssm 2, checks of its selective_scan.cpp, arithmetic of our reference."""
    assert u.dtype == delta.dtype == B.dtype == C.dtype
    assert {A.dtype, torch.float32 if D is None else D.dtype} == {torch.float32}
    assert B.shape == C.shape == (len(u), B.shape[1], A.shape[1], u.shape[2])
    assert z is None
    assert not return_last_state
    assert cu_seqlens is None
    return load_backend("reference").selective_scan(
        u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus
    )


def on_gpu(dtype=torch.float32):
    """All that `usable` looks at; the trial then runs on the CPU."""
    return types.SimpleNamespace(dtype=dtype, is_cuda=True, device=torch.device("cpu"))


@pytest.fixture
def backend():
    module = load_backend("mamba_ssm")
    caches = (module._selective_scan_fn, _probe.agrees)
    for cache in caches:
        cache.cache_clear()
    yield module
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def package(backend, monkeypatch):
    """A mamba_ssm package; returns the module of the scan."""
    for name in ("mamba_ssm", "mamba_ssm.ops", INTERFACE):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    module.selective_scan_fn = selective_scan_fn
    return module


def arguments(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    given = [draw(2, 12, 19), draw(2, 12, 19).abs(), -draw(12, 5).abs()]
    return [*given, draw(2, 3, 5, 19), draw(2, 3, 5, 19), draw(12), draw(12).abs()]


def results(scan, given, delta_softplus):
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    y = scan(*leaves[:6], delta_bias=leaves[6], delta_softplus=delta_softplus)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, *torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], weight)


@pytest.mark.parametrize("delta_softplus", [True, False])
@pytest.mark.parametrize("absent", [(), (5,), (6,), (5, 6)])
def test_arguments_arrive_where_they_belong(backend, package, absent, delta_softplus):
    given = [None if i in absent else tensor for i, tensor in enumerate(arguments())]
    double = [None if tensor is None else tensor.double() for tensor in given]

    found = results(backend.selective_scan, given, delta_softplus)

    expected = results(load_backend("reference").selective_scan, double, delta_softplus)
    for value, truth in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert (value - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_narrow_types_are_widened_and_a_batch_may_be_empty(backend, package):
    given = arguments(torch.bfloat16)
    empty = [t[:0] if i in (0, 1, 3, 4) else t for i, t in enumerate(given[:6])]

    y = backend.selective_scan(*given[:6], delta_bias=given[6])
    none = backend.selective_scan(*empty)

    assert y.dtype == torch.float32
    assert none.shape == (0, 12, 19)


def test_usable_after_a_trial(backend, package):
    assert backend.usable(on_gpu())
    assert backend.usable(on_gpu(torch.float16))
    assert not backend.usable(on_gpu(torch.float64))
    assert not backend.usable(torch.zeros(1))


def test_not_usable_without_the_package(backend):
    if backend.installed():
        pytest.skip("mamba_ssm is installed here")
    assert not backend.usable(on_gpu())
    with pytest.raises(ValueError, match="backend 'mamba_ssm' cannot serve"):
        selective_scan(*arguments()[:6], backend="mamba_ssm")


def test_package_whose_compiled_part_is_missing(backend, package, monkeypatch):
    monkeypatch.setitem(sys.modules, INTERFACE, None)

    with pytest.warns(RuntimeWarning, match="mamba_ssm selective scan is not used on cpu: Mod"):
        assert not backend.usable(on_gpu())
    assert not backend.usable(on_gpu())


def test_triton_comes_first_because_its_bits_do_not_change(backend):
    assert backend.PRIORITY > load_backend("chunked").PRIORITY
    triton = load_backend("triton")
    assert triton.INTERPRETED or triton.PRIORITY > backend.PRIORITY
