"""What this machine offers, in plain lines."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from palpate import __version__

_EXTRAS = {"timm": "vision", "torchvision": "vision", "medmnist": "medical"}


def findings() -> Iterator[str]:
    """Yield one line per fact: versions, device, compiler, optional libraries, bundled files."""
    import torch

    yield f"palpate {__version__}, Python {platform.python_version()}, {platform.platform()}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the CPU is used"
    yield f"torch {torch.__version__}, {torch.get_num_threads()} threads, GPU: {device}"
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    found = compiler or "none: the selective scan falls back to plain torch (slower)"
    yield f"C++ compiler: {found}"
    for package, extra in _EXTRAS.items():
        yield f"{package}: {_version(package) or f'missing, pip install palpate[{extra}]'}"
    for name in ("breastmnist.npz", "demo.yaml"):
        path = Path(str(resources.files("palpate") / "data" / name))
        yield f"bundled {name}: {'present' if path.is_file() else 'MISSING'}"


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
