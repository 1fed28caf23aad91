"""What only the compiled backend has: its own exponential, and the compiler that may be missing."""

import shutil
import sys

import pytest
import torch

from palpate.scan import _build, selective_scan
from palpate.scan.base import load_backend


@pytest.fixture
def fresh_build(monkeypatch, tmp_path):
    """A process that has not built anything yet, with an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    _build.load_library.cache_clear()
    yield tmp_path
    _build.load_library.cache_clear()


def needs_compiler():
    if not load_backend("cpp").usable(torch.zeros(1)):
        pytest.skip("no compiler here")


def decayed(exponents):
    """exp of each number, as the scan computes it: state 1, then one step of decay."""
    count = len(exponents)
    u = torch.tensor([1.0, 0.0]).expand(1, count, 2)
    delta = torch.stack((torch.ones(count), exponents), dim=-1)[None]
    matrix, ones = torch.ones(count, 1), torch.ones(1, 1, 1, 2)
    return selective_scan(u, delta, matrix, ones, ones, delta_softplus=False, backend="cpp")[
        0, :, 1
    ]


def test_exponential_over_the_whole_range():
    needs_compiler()
    x = torch.linspace(-87.0, 88.7, 20_011)
    assert (decayed(x).double() / x.double().exp() - 1).abs().max() < 2.5e-7
    small = torch.linspace(-120.0, -87.0, 1_001)
    assert (decayed(small).double() - small.double().exp()).abs().max() <= 2**-149
    edges = torch.tensor([88.73, 1e30, -104.1, -1e30, 0.0, -0.0])
    assert decayed(edges).tolist() == [torch.inf, torch.inf, 0.0, 0.0, 1.0, 1.0]


def test_double_is_refused_by_name_and_served_by_auto():
    needs_compiler()
    u = torch.rand(1, 1, 3, dtype=torch.float64)
    rest = (u, -torch.ones(1, 1, dtype=torch.float64), u[None], u[None])
    with pytest.raises(ValueError, match=r"'cpp' cannot serve a torch\.float64 tensor on cpu"):
        selective_scan(u, *rest, backend="cpp")
    assert selective_scan(u, *rest).dtype == torch.float64


def test_library_is_built_once_and_kept(fresh_build):
    needs_compiler()
    (library,) = (fresh_build / "palpate" / "scan").iterdir()
    built = library.stat().st_mtime_ns
    _build.load_library.cache_clear()
    assert _build.load_library() is not None
    assert [p.stat().st_mtime_ns for p in library.parent.iterdir()] == [built]


def test_no_compiler_falls_back_with_one_warning(fresh_build, monkeypatch, recwarn):
    monkeypatch.setattr(_build, "COMPILERS", ())
    u = torch.rand(1, 2, 3)
    with pytest.warns(RuntimeWarning, match="plain torch is used instead: no C.. compiler"):
        y = selective_scan(u, u, -torch.ones(2, 1), u[:, :1, None], u[:, :1, None])
    again = selective_scan(u, u, -torch.ones(2, 1), u[:, :1, None], u[:, :1, None])
    assert torch.equal(y, again)
    assert len(recwarn) == 0
    assert not list(fresh_build.rglob("*.so"))


@pytest.mark.skipif(sys.platform == "win32", reason="the broken compiler is a shell script")
def test_broken_compiler_is_quoted(fresh_build, monkeypatch):
    script = fresh_build / "broken"
    script.write_text("#!/bin/sh\necho 'cannot find -lm' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.warns(RuntimeWarning, match="broken failed: cannot find -lm"):
        assert _build.load_library() is None


def test_unreadable_library_is_no_crash(fresh_build):
    if not shutil.which("c++"):
        pytest.skip("no compiler here")
    folder = _build.cache_folder()
    folder.mkdir(parents=True)
    name = f"selective_scan-{_build._digest(_build._compiler())}.so"
    (folder / name).write_bytes(b"not a library")
    with pytest.warns(RuntimeWarning, match="not available"):
        assert _build.load_library() is None
