"""What this machine offers, in plain lines."""

import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from palpate import __version__

CLIPSEG_FOLDER: Final = "PALPATE_CLIPSEG"
"""Environment variable: a folder with the files of the real CLIPSeg."""
_OURS: Final = ("dev", "docs")  # extras of those who work on Palpate
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]")


def findings() -> Iterator[str]:
    """Yield one line per fact: versions, device, compiler, extras, files of models and data."""
    import torch

    yield f"palpate {__version__}, Python {platform.python_version()}, {platform.platform()}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the CPU is used"
    yield f"torch {torch.__version__}, {torch.get_num_threads()} threads, GPU: {device}"
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    found = compiler or "none: the selective scan falls back to plain torch (slower)"
    yield f"C++ compiler: {found}"
    yield from _extras()
    for name in ("breastmnist.npz", "demo.yaml"):
        path = Path(str(resources.files("palpate") / "data" / name))
        yield f"bundled {name}: {'present' if path.is_file() else 'MISSING'}"
    yield from _clipseg()


def _extras() -> Iterator[str]:
    """One line per library of each extra that the installed Palpate offers."""
    for requirement in metadata.requires("palpate") or ():
        found = _REQUIREMENT.match(requirement)
        if found and found[2] not in _OURS:
            package, extra = found.groups()
            state = _version(package) or f"missing, pip install 'palpate[{extra}]'"
            yield f"{package} ({extra}): {state}"


def _clipseg() -> Iterator[str]:
    """One line per file of the CLIPSeg that the full recipes train and audit; asks no network."""
    from palpate.targets.clipseg import FILES, Clipseg

    hub, folder = Clipseg().hub, os.environ.get(CLIPSEG_FOLDER)
    for name in FILES:
        own = Path(folder) / name if folder else None
        cached = _cached(hub, name)
        if own is not None and own.is_file():
            yield f"{hub} {name}: present, {own}"
        elif cached is not None:
            yield f"{hub} {name}: present, {cached}"
        else:
            where = folder or f"a folder named by {CLIPSEG_FOLDER}"
            yield f"{hub} {name}: MISSING, neither in {where} nor in the Hugging Face cache"


def _cached(hub: str, name: str) -> str | None:
    """Path of a file in the Hugging Face cache, where that library and the file are there."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub, name)
    return found if isinstance(found, str) else None  # else unknown, or known not to exist


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
