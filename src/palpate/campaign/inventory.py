"""Which components, in which versions: workers of one run must all have the same."""

import functools
import hashlib
import re
from importlib import metadata
from pathlib import Path
from typing import Final

import palpate
from palpate import registry

_VERSION: Final = re.compile(r"^    version: ClassVar\[int\] = (\d+)$", re.MULTILINE)


@functools.cache
def inventory() -> str:
    """Hash of Palpate's version and of the name and version of every component that is here.

    Nothing is imported: our own components are read as text, a plug-in has its distribution's
    version.

    Returns:
        SHA-256.
    """
    found = {
        f"{family}/{name}": version_of(family, name)
        for family in registry.FAMILIES
        for name in registry.names(family)
    }
    whole = registry.canonical([palpate.__version__, found])
    return hashlib.sha256(whole.encode()).hexdigest()


def version_of(family: str, name: str) -> str:
    """Version of a component; of its distribution for a plug-in."""
    if "/" in name:
        return metadata.version(name.partition("/")[0])
    source = (Path(palpate.__file__).parent / family / f"{name}.py").read_text(encoding="utf-8")
    match = _VERSION.search(source)
    return match[1] if match else "1"
