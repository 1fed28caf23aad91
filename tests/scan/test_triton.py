"""The Triton kernels in the interpreter or on a GPU, and compiled for GPUs without one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from palpate.scan import _probe, selective_scan
from palpate.scan.base import load_backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TESTS = Path(__file__).parent
# names of the arguments that are numbers, and of those that may be absent
NUMBERS, OPTIONAL = ("groups", "width", "states", "length", "span"), ("D", "starts")

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
outside = pytest.mark.skipif(INTERPRETED, reason="about the process outside the interpreter")


def place():
    """Where the kernels can run in this process."""
    backend = load_backend("triton")
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        if backend.usable(torch.zeros(1, device=device)):
            return device
    return pytest.skip("neither a GPU nor the interpreter; see test_in_the_interpreter")


def arguments(batch, groups, width, length, states):
    generator = torch.Generator().manual_seed(length)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    channels, projection = groups * width, (batch, groups, states, length)
    sequences = [draw(batch, channels, length), draw(batch, channels, length) - 3]
    matrix = -torch.rand(channels, states, generator=generator) * states
    return [*sequences, matrix, draw(*projection), draw(*projection), draw(channels)]


def gradients(given, backend, **options):
    leaves = [tensor.detach().requires_grad_() for tensor in given]
    y = selective_scan(*leaves, backend=backend, **options)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    return [tensor.cpu() for tensor in (y.detach(), *torch.autograd.grad(y, leaves, weight))]


@needs_triton
@outside
def test_in_the_interpreter():
    """Runs the tests of every backend, and those below, where TRITON_INTERPRET=1."""
    files = [str(TESTS / name) for name in ("test_backends.py", "test_triton.py")]
    # numpy warns where a GPU quietly overflows
    quiet = ["-W", "ignore::RuntimeWarning", "-p", "no:cacheprovider", "-q"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, "-k", "triton", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""},
        cwd=TESTS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


# shapes: batch, groups, width, length, states
@pytest.mark.parametrize(
    "shape", [(1, 4, 3, 1, 1), (1, 4, 2, 17, 5), (1, 1, 3, 49, 16), (1, 1, 1, 196, 16)]
)
def test_lengths_groups_and_states(shape):
    given, device = arguments(*shape), place()
    expected = gradients([tensor.double() for tensor in given], "reference")

    found = gradients([tensor.to(device) for tensor in given], "triton")

    for value, truth in zip(found, expected, strict=True):
        assert (value - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_narrow_types_are_widened_and_double_is_refused():
    given, device = arguments(1, 1, 2, 3, 2), place()
    half = [tensor.to(device, torch.bfloat16) for tensor in given]
    expected = selective_scan(*(tensor.float() for tensor in half), backend="reference")

    found = selective_scan(*half, backend="triton")

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    with pytest.raises(ValueError, match=r"'triton' cannot serve a torch\.float64 tensor on"):
        selective_scan(*(tensor.to(device).double() for tensor in given), backend="triton")


def test_interpreter_is_used_only_by_name(monkeypatch):
    if place() != "cpu":
        pytest.skip("on a GPU it is used by default")
    monkeypatch.delattr(load_backend("triton"), "_TritonScan")  # would fail if it were asked

    gradients(arguments(1, 1, 2, 3, 2), "auto")

    with pytest.raises(NameError):
        gradients(arguments(1, 1, 2, 3, 2), "triton")


@outside
def test_neither_cpu_nor_a_missing_package_is_served(monkeypatch):
    backend = load_backend("triton")

    assert not backend.usable(torch.zeros(1))
    monkeypatch.setattr(backend, "INTERPRETED", True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not backend.usable(torch.zeros(1))


@outside
def test_import_without_triton():
    code = "import sys; sys.modules['triton'] = None; import palpate.scan.triton"

    subprocess.run([sys.executable, "-c", code], check=True)


@needs_triton
@outside
@pytest.mark.parametrize("absent", [(), OPTIONAL])
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["scan_forward", "scan_backward"])
def test_compiles_for_a_gpu_without_one(name, capability, absent, monkeypatch, tmp_path):
    """What the interpreter cannot tell: that the kernels are legal for the compiler."""
    compiler = pytest.importorskip("triton.compiler")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(load_backend("triton")._kernels(), name)
    fixed = {"STATES": 16, "LANES": 32, **{n: None for n in absent if n in kernel.arg_names}}
    if absent and name == "scan_forward":
        fixed |= dict.fromkeys(NUMBERS, 1)  # the compiler makes a constant of every 1
    if name == "scan_backward":
        fixed.pop("starts", None)
    kinds = {n: "i32" if n in NUMBERS else "*fp32" for n in kernel.arg_names}
    source = compiler.ASTSource(kernel, {**kinds, **dict.fromkeys(fixed, "constexpr")}, fixed)

    built = compiler.compile(source, target, {"num_warps": 1, "enable_fp_fusion": True})

    assert built.asm["cubin"]


def test_a_scan_that_is_wrong_or_fails_is_not_used():
    def wrong(*given, **options):
        return load_backend("reference").selective_scan(*given, **options) * 1.001

    def broken(*given, **options):
        raise RuntimeError("no C compiler")

    cpu = torch.device("cpu")
    assert _probe.agrees("right", load_backend("reference").selective_scan, cpu)
    with pytest.warns(RuntimeWarning, match=r"the odd selective scan is not used on cpu: its rel"):
        assert not _probe.agrees("odd", wrong, cpu)
    with pytest.warns(RuntimeWarning, match="not used on cpu: RuntimeError: no C compiler"):
        assert not _probe.agrees("lame", broken, cpu)
    assert not _probe.agrees("lame", broken, cpu)  # warned once
    with torch.inference_mode():
        assert _probe.agrees("in inference", load_backend("chunked").selective_scan, cpu)
