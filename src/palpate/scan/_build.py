"""Compile the C++ scan with the system's compiler, once per machine, and load it.

The library is kept in the user's cache folder under a name that holds the digest of source,
compiler and processor, so that it is never used where it was not made for.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("_selective_scan.cpp")
COMPILERS: Final = ("c++", "g++", "clang++")
# Without -ffast-math: see the head of the source. Later sets are for compilers that lack a flag.
FLAGS: Final = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())
ALWAYS: Final = ("-O3", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi")
BUILD_SECONDS: Final = 120.0

_logger = logging.getLogger(__name__)


class _BuildError(Exception):
    """Why there is no library; the text is shown to the user."""


def _compiler() -> str:
    wanted = (os.environ.get("CXX"), *COMPILERS)
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    if found is None:
        raise _BuildError("no C++ compiler was found (set CXX to name one)")
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _BuildError(f"{command[0]} did not run: {error}") from error


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    keys = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(keys)}))


def _digest(compiler: str) -> str:
    version = _run([compiler, "--version"]).stdout
    parts = (SOURCE.read_text(encoding="utf-8"), repr((FLAGS, ALWAYS)), compiler, version)
    text = "\0".join((*parts, platform.machine(), _processor()))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Where compiled scans are kept: `palpate/scan` in XDG_CACHE_HOME or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "palpate" / "scan"


def _compile(compiler: str, library: Path) -> None:
    """Build beside the final place and rename, so that a half-written file is never loaded."""
    complaint = ""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / library.name
        for flags in FLAGS:
            done = _run([compiler, *ALWAYS, *flags, str(SOURCE), "-o", str(built)])
            if done.returncode == 0:
                built.replace(library)
                _logger.info("compiled the selective scan with %s %s", compiler, " ".join(flags))
                return
            complaint = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "no message"
    raise _BuildError(f"{compiler} failed: {complaint}")


def _build() -> ctypes.CDLL:
    compiler = _compiler()
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        library = folder / f"selective_scan-{_digest(compiler)}.so"
        if not library.exists():
            _compile(compiler, library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError) as error:
        raise _BuildError(str(error)) from error


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The compiled scan, built if need be; None, after one warning, where that is not possible."""
    try:
        library = _build()
    except _BuildError as reason:
        warnings.warn(
            f"the C++ selective scan is not available, plain torch is used instead: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    pointer, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
    library.selective_scan_forward.argtypes = [*[pointer] * 8, sizes, ctypes.c_int]
    library.selective_scan_backward.argtypes = [*[pointer] * 14, sizes, ctypes.c_int]
    library.selective_scan_forward.restype = library.selective_scan_backward.restype = None
    return library
