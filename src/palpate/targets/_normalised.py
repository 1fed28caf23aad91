"""The affine map from pixels to what a module was trained on."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from palpate.errors import TargetError
from palpate.types import Images


def normalised(images: Images, mean: Sequence[float], std: Sequence[float], *, name: str) -> Images:
    """(images − mean) / std; a copy where that changes nothing: a module may write into it.

    Args:
        images: (batch, channel, *spatial).
        mean: one for all channels, or one for each.
        std: likewise.
        name: of the target, for the error.

    Raises:
        TargetError: mean or std for another number of channels.
    """
    channels = images.shape[1]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise TargetError(
            f"{name}: expected mean and std of 1 or {channels} entries,"
            f" got {len(mean)} and {len(std)}"
        )
    if set(mean) == {0.0} and set(std) == {1.0}:
        return images.clone()
    dims = images.ndim - 2
    centre, scale = (_per_channel(tuple(v), dims, images.dtype, images.device) for v in (mean, std))
    return (images - centre) / scale


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # a tensor made in that mode could not be used in a gradient
def _per_channel(
    values: tuple[float, ...], dims: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Kept, since making one costs as much as a small layer, and on a GPU waits for it."""
    return torch.tensor(values, dtype=dtype, device=device).reshape(1, -1, *[1] * dims)
