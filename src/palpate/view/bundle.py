"""The page of a run as a static folder: for a colleague, an archive, or any web server."""

import base64
import contextlib
import hashlib
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson

from palpate.errors import StoreError
from palpate.view.server import PARTS
from palpate.view.shelf import Shelf

MARK: Final = "bundle.json"
"""File that tells a bundle, which may be replaced, from a folder that must not be touched."""

_SOURCE: Final = ("palpate.view", "from_files.js")


def write_bundle(folder: Path, output: Path) -> Path:
    """Write a run, finished or not, as a static folder; all of it or nothing.

    Args:
        folder: the run directory.
        output: a new or empty folder, or an older bundle, which is replaced.

    Returns:
        The path of the page.

    Raises:
        StoreError: no run there, a folder of something else, or one that cannot be written.
    """
    shelf = Shelf.open(folder)
    _refuse_others(output)
    place = output.resolve()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        _fill(shelf, temporary)
        _replace(place, temporary)
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output / "index.html"


def _refuse_others(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / MARK).is_file():
        raise StoreError(f"{output}: expected a new folder or an older bundle, got other files")
    if output.exists() and not output.is_dir():
        raise StoreError(f"{output}: expected a folder, got a file")


def _replace(place: Path, temporary: Path) -> None:
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if not place.exists():
        temporary.rename(place)
        return
    place.rename(old)
    try:
        temporary.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(shelf: Shelf, folder: Path) -> None:
    for name, (package, part) in (PARTS | {"source.js": _SOURCE}).items():
        (folder / (name or "index.html")).write_bytes((files(package) / part).read_bytes())
    if (report := shelf.files.report) is not None:
        shutil.copyfile(report, folder / "report.html")
    (folder / "data").mkdir()
    (folder / "pictures").mkdir()
    for key in shelf.keys:
        _piece(folder, key, data=_cell(shelf, key, folder=folder))
    _piece(folder, "cells", data=shelf.whole_plan().plain())
    about = shelf.about()
    _piece(folder, "run", data=about)
    (folder / MARK).write_bytes(orjson.dumps({"palpate_bundle": 1, "run": about}))


def _cell(shelf: Shelf, key: str, *, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"head": shelf.head(key), "samples": None, "cases": []}
    try:
        found["samples"] = shelf.samples(key).plain()
        for sample, trial in shelf.cases(key):
            case = _case(shelf, key, sample=sample, trial=trial, folder=folder)
            found["cases"].append({"sample": sample, "trial": trial, **case})
    except StoreError as error:
        found["problem"] = str(error)
    return found


def _case(shelf: Shelf, key: str, *, sample: str, trial: int, folder: Path) -> dict[str, Any]:
    try:
        made = shelf.case(key, sample, trial=trial)
    except StoreError as error:
        return {"problem": str(error)}
    return {"pictures": [{**one, "source": _picture(folder, one["source"])} for one in made]}


def _picture(folder: Path, source: str) -> str:
    """Write a picture once, whatever number of cells show it, and say where."""
    content = base64.b64decode(source.partition(",")[2])
    name = f"pictures/{hashlib.sha256(content).hexdigest()[:32]}.png"
    with contextlib.suppress(FileExistsError), (folder / name).open("xb") as file:
        file.write(content)
    return name


def _piece(folder: Path, name: str, *, data: Any) -> None:
    """JSON in a script, the only form of data that a page from the disk may load."""
    text = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    (folder / "data" / f"{name}.js").write_bytes(
        b'piece("' + name.encode() + b'",' + text + b");\n"
    )
