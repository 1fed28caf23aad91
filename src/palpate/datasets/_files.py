"""Tables, facts and pictures on the disk, read with errors that name the file."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from palpate.errors import DataError

SCALES: Final = {
    np.dtype(np.uint8): 255.0,
    np.dtype(np.uint16): 65535.0,
    np.dtype(np.int32): 65535.0,  # how older versions of Pillow read 16 bits
}
_WITH_ALPHA = ("RGBA", "LA", "PA", "CMYK")


def table(path: Path, wanted: Iterable[str] = ()) -> tuple[list[dict[str, str]], list[str]]:
    """Rows and column names of a CSV file; the cells that a short row lacks are empty.

    Raises:
        DataError: unreadable, or a wanted column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
            columns = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from None
    for column in sorted(set(wanted) - set(columns)):
        raise DataError(f"{path}: expected a column {column!r}, got {', '.join(columns) or 'none'}")
    return rows, columns


def facts(path: Path) -> dict[str, Any]:
    """Content of a JSON file such as dataset.json; empty if there is none.

    Raises:
        DataError: not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        return dict(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: expected a JSON object, got {error}") from None


def numbered(given: Any, where: object) -> dict[int, str]:
    """A JSON object of names by number, such as {"0": "background"}, in the order of the numbers.

    Raises:
        DataError: something else.
    """
    try:
        names = {int(key): str(name) for key, name in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{where}: expected number -> name, got {given!r}") from None
    return dict(sorted(names.items()))


def check_size(size: int | None, what: str) -> None:
    """Refuse a side length to resize to that is none.

    Raises:
        DataError: it is less than 1.
    """
    if size is not None and size < 1:
        raise DataError(f"{what}: size: expected 1 or more, got {size}")


def check_splits(rows: Iterable[tuple[str, str]], where: object) -> None:
    """Refuse a case (first of a row) that lies in two splits (second).

    Raises:
        DataError: names the case and its splits.
    """
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for case, split in rows:
        splits[case].add(split)
    for case, found in splits.items():
        if len(found) > 1:
            raise DataError(
                f"{where}: expected every case in one split, got case {case!r} in"
                f" {' and '.join(sorted(found))}"
            )


def picture(
    path: Path, *, size: int | None = None, resampling: int = Image.Resampling.BILINEAR
) -> NDArray[Any]:
    """Pixels of an image file: (height, width) or (height, width, 3), in the file's own depth.

    Args:
        path: any file that Pillow reads.
        size: resize to this square.
        resampling: Pillow's filter; nearest keeps the palette's and the masks' numbers.

    Raises:
        DataError: unreadable, or with an alpha or ink channel.
    """
    try:
        with Image.open(path) as image:
            keeps = resampling == Image.Resampling.NEAREST
            chosen = image if keeps or image.mode != "P" else image.convert("RGB")
            if chosen.mode in _WITH_ALPHA:
                raise DataError(f"{path}: expected a grey or RGB image, got {chosen.mode}")
            if chosen.mode == "1":
                chosen = chosen.convert("L")
            if size is not None:
                chosen = chosen.resize((size, size), Image.Resampling(resampling))
            return np.asarray(chosen)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from None


def side_lengths(path: Path) -> tuple[int, int]:
    """Width and height of an image file, without reading its pixels.

    Raises:
        DataError: unreadable.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from None


def stacked(images: list[NDArray[Any]], names: Iterable[object], *, what: str) -> NDArray[Any]:
    """One array of images of one shape, ([channel,] height, width).

    Raises:
        DataError: names two images whose shapes differ.
    """
    named = list(zip(images, names, strict=True))
    for image, name in named:
        if image.shape != images[0].shape:
            resizable = image.shape[-2:] != images[0].shape[-2:]
            hint = "set size to resize" if resizable else "grey and colour cannot be mixed"
            raise DataError(
                f"{what}: expected images of one shape, got {images[0].shape} in {named[0][1]} and"
                f" {image.shape} in {name}; {hint}"
            )
    return np.stack(images)
