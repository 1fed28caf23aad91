"""NIfTI files (nibabel, the extra [medical]) as slices."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palpate.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
Read = Callable[[Path, int, bool], NDArray[np.float32]]


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def depth(image: Path, mask: Path) -> int:
    """Number of slices of two NIfTI files that lie on the same grid, read from their headers.

    Raises:
        DataError: unreadable, not 2-D or 3-D, or on grids that differ.
    """
    first, second = _opened(image), _opened(mask)
    if first.shape != second.shape:
        raise DataError(
            f"{mask}: expected a mask of its image's size {first.shape}, got {second.shape}"
        )
    if not np.allclose(first.affine, second.affine, atol=1e-3):
        raise DataError(f"{mask}: expected the place and spacing of {image}, got another affine")
    if first.ndim not in (2, 3):
        raise DataError(f"{image}: expected 2 or 3 dimensions, got shape {first.shape}")
    return first.shape[2] if first.ndim == 3 else 1


def reader() -> Read:
    """Reads slices (rows, columns); keeps the last volumes, so that neighbours cost one reading.

    The reader takes a file, the number of the slice, and whether to scale the volume to [0, 1].
    """

    @lru_cache(maxsize=2)
    def volume(path: Path, scaled: bool) -> NDArray[np.float32]:  # noqa: FBT001 - a cache's key
        try:
            values = np.asarray(_opened(path).dataobj, dtype=np.float32)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as NIfTI: {error}") from None
        if scaled:
            values = _to_unit(path, values)
        return values[..., None] if values.ndim == 2 else values

    return lambda path, index, scaled: volume(path, scaled)[:, :, index].T


def resized(values: NDArray[np.float32], size: int | None, *, nearest: bool) -> NDArray[np.float32]:
    """A slice on a square of `size`, bilinear for images, nearest for masks."""
    if size is None:
        return values
    kind = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((size, size), kind))


def _to_unit(path: Path, values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise DataError(f"{path}: expected finite voxels, got NaN or infinity")
    return (values - low) / max(high - low, np.float32(1e-12))


def _opened(path: Path) -> Any:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError:
        raise DataError("NIfTI files need the extra: pip install 'palpate[medical]'") from None
    try:
        found: Any = nibabel.load(path)  # pyright: ignore
        return nibabel.as_closest_canonical(found) if len(found.shape) >= 3 else found
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as NIfTI: {reason}") from None
