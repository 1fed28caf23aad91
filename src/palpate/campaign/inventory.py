"""Which components, in which versions: workers of one run must all have the same."""

import functools
import hashlib
import re
from importlib import metadata
from pathlib import Path
from typing import Final

import palpate
from palpate import registry

_VERSION: Final = re.compile(r"^    version(?:: ClassVar\[int\])? = (\d+)$", re.MULTILINE)


@functools.cache
def inventory() -> str:
    """Hash of Palpate's version and of the name and version of every component that is here.

    Returns:
        SHA-256.
    """
    own = versions(Path(palpate.__file__).parent)
    plugins = {
        f"{family}/{name}": metadata.version(name.partition("/")[0])
        for family in registry.FAMILIES
        for name in registry.names(family)
        if "/" in name
    }
    whole = registry.canonical([palpate.__version__, own, plugins])
    return hashlib.sha256(whole.encode()).hexdigest()


def versions(root: Path) -> dict[str, list[str]]:
    """Every component's file with the versions that it states; nothing is imported.

    A version may be inherited, so that files of the family that state one are there too.
    """
    found: dict[str, list[str]] = {}
    for family in registry.FAMILIES:
        for path in sorted((root / family).glob("*.py")):
            stated = _VERSION.findall(path.read_text(encoding="utf-8"))
            if stated or not path.stem.startswith("_"):
                found[f"{family}/{path.stem}"] = stated
    return found
