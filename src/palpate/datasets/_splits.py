"""Files in MedMNIST's layout: an .npz with `{train,val,test}_images` and `..._labels`."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palpate.errors import DataError


def shared_places(name: str) -> list[Path]:
    """The folder `name` in PALPATE_DATA, then PALPATE_DATA itself; none if it is not set."""
    shared = os.environ.get("PALPATE_DATA")
    return [Path(shared) / name, Path(shared)] if shared else []


def find(file: str, places: Iterable[Path]) -> Path | None:
    """The first of the places that holds the file."""
    return next((place / file for place in places if (place / file).is_file()), None)


def split_arrays(path: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Images (n, channel, side, side), uint8, and labels (n, ...) as the file has them.

    Raises:
        DataError: not such a file, or images of another type or shape.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            images, labels = content[f"{split}_images"], content[f"{split}_labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a MedMNIST .npz, cannot read it: {error}") from None
    except KeyError as error:
        raise DataError(f"{path}: expected MedMNIST arrays, got no {error.args[0]}") from None
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour):
        raise DataError(
            f"{path}: expected uint8 images (n, side, side[, 3]), got {images.dtype} {images.shape}"
        )
    return (images.transpose(0, 3, 1, 2) if colour else images[:, None]), labels
