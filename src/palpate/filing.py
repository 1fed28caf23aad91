"""Images as a file would hold them: the 8-bit grid, PNG, and real JPEG by Pillow."""

from io import BytesIO
from typing import Final

import numpy as np
import torch
from PIL import Image

from palpate.errors import CapabilityError
from palpate.storage import FILES, Storage
from palpate.types import Bounds, Images

_LEVELS: Final = 255


def check_storage(storage: Storage, images: Images) -> None:
    """Refuse images that such a file cannot hold.

    Raises:
        CapabilityError: a picture file for volumes, or for other than 1 or 3 channels.
    """
    if storage.format in FILES and (images.ndim != 4 or images.shape[1] not in (1, 3)):
        raise CapabilityError(
            f"storage {storage}: expected pictures of 1 or 3 channels (channel, height, width),"
            f" got {tuple(images.shape[1:])}; uint8 stores any shape on the same grey levels"
        )


def filed(images: Images, storage: Storage, bounds: Bounds) -> Images:
    """Clean images as they are judged, and as an attack meets them.

    Args:
        images: within the bounds.
        storage: what to do; float32, and files that leave the originals alone, change nothing.
        bounds: legal range; 0 and 255 in the file.

    Raises:
        CapabilityError: as `check_storage`.
    """
    check_storage(storage, images)
    if storage.format == "float32" or not storage.originals:
        return images
    if storage.format == "jpeg":
        return jpeg(images, bounds, quality=storage.quality)
    return on_grid(images, bounds)


def refiled(images: Images, storage: Storage, bounds: Bounds, *, clean: Images) -> Images:
    """Disturbed images as they are judged; one that is as it was is not written anew.

    Args:
        images: within the bounds.
        storage: what to do.
        bounds: legal range.
        clean: the undisturbed images, out of `filed`.
    """
    if storage.format == "float32":
        return images
    if storage.format == "uint8":
        return on_grid(images, bounds, clean=clean)
    written = (
        jpeg(images, bounds, quality=storage.quality)
        if storage.format == "jpeg"
        else on_grid(images, bounds)
    )
    same = (images == clean).flatten(1).all(dim=1)
    return torch.where(same.reshape(-1, *(1 for _ in images.shape[1:])), clean, written)


def on_grid(images: Images, bounds: Bounds, *, clean: Images | None = None) -> Images:
    """Put images on the 256 grey levels between the bounds, as an 8-bit file holds them.

    Args:
        images: within the bounds.
        bounds: legal range.
        clean: images on the grid to round towards; to the nearest level without.
    """
    low, width = bounds.low, bounds.high - bounds.low
    levels = (images - low) / width * _LEVELS
    if clean is None:
        whole = levels.round()
    else:
        start = ((clean - low) / width * _LEVELS).round()
        # a thousandth of a level is rounding, not a change that was not made
        change = levels - start
        whole = start + (change + 1e-3 * change.sign()).trunc()
    return (whole / _LEVELS * width + low).clamp(*bounds)


def jpeg(images: Images, bounds: Bounds, *, quality: int) -> Images:
    """Write each image as a JPEG file in memory and read it back.

    Colour is subsampled 4:2:0, which is what Pillow, and so most image writers, do unless told
    otherwise. Not differentiable.

    Args:
        images: (batch, 1 or 3, height, width) within the bounds.
        bounds: legal range; 0 and 255 in the file.
        quality: 1 to 95.

    Returns:
        Same shape, dtype and device, on the 256 grey levels of the bounds.
    """
    low, width = bounds.low, bounds.high - bounds.low
    levels = ((images.detach() - low) / width * _LEVELS).round().clamp(0, _LEVELS)
    pictures = levels.to(torch.uint8).movedim(1, -1).cpu().numpy()
    read = np.stack([_through_file(picture, quality) for picture in pictures])
    back = torch.from_numpy(read).movedim(-1, 1).to(images)
    return (back / _LEVELS * width + low).clamp(*bounds)


def _through_file(picture: np.ndarray, quality: int) -> np.ndarray:  # pyright: ignore
    file = BytesIO()
    grey = picture.shape[-1] == 1
    Image.fromarray(picture[..., 0] if grey else picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        read = np.asarray(image)
    return read[..., None] if grey else read
