"""Defocus blur: every point becomes a disk.

Hendrycks, Dietterich, arXiv 1903.12261, section 3 and its code's constants (ImageNet-C), made for
images of 224 pixels. The blur that a 224-pixel version of the picture would get is applied at the
picture's own size: below 224 the kernel is binned into the coarser pixels, above it the radius
grows. On 28 pixels the radii are therefore 0.375, 0.5, 0.75, 1 and 1.25 pixels.

| code | meaning | value at severity 1 / 2 / 3 / 4 / 5 |
|---|---|---|
| radius | of the disk, pixels at a short side of 224 | 3 / 4 / 6 / 8 / 10 |
| alias | σ of the Gaussian that smooths the disk's edge, same pixels | .1 / .5 / .5 / .5 / .5 |
| scale | short side / 224 | |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.corruptions.base import Corruption, require_2d
from palpate.types import Bounds, Images

_REFERENCE_SIDE = 224


@final
@dataclass(frozen=True)
class DefocusBlur(Corruption):
    """Convolution with a smoothed disk, borders mirrored."""

    DISK: ClassVar[tuple[tuple[float, float], ...]] = (
        (3.0, 0.1),
        (4.0, 0.5),
        (6.0, 0.5),
        (8.0, 0.5),
        (10.0, 0.5),
    )

    @override
    def _disturb(self, images: Images, bounds: Bounds, seeds: Sequence[int]) -> Images:
        require_2d(self, images)
        radius, alias = self.DISK[self.severity - 1]
        scale = min(images.shape[-2:]) / _REFERENCE_SIDE
        kernel = blur_kernel(radius, alias, scale=scale).to(images)
        channels, pad = images.shape[1], kernel.shape[0] // 2
        # mirrored without repeating the edge, as OpenCV's default in the original
        padded = functional.pad(images, (pad,) * 4, mode="reflect")
        weight = kernel.expand(channels, 1, -1, -1)
        return functional.conv2d(padded, weight, groups=channels).clamp(bounds.low, bounds.high)


def blur_kernel(radius: float, alias: float, *, scale: float) -> Tensor:
    """Smoothed disk for an image whose short side is scale * 224.

    Args:
        radius: pixels at 224.
        alias: σ of the edge smoothing, pixels at 224.
        scale: short side / 224.

    Returns:
        (odd, odd) float64, sum 1.
    """
    stretch = max(scale, 1.0)
    disk = _smoothed_disk(radius * stretch, alias * stretch)
    if scale < 1.0:
        disk = _binned(disk, scale)
    return disk / disk.sum()


def _smoothed_disk(radius: float, alias: float) -> Tensor:
    reach = int(radius) + 3
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).double()
    half = 1 if radius <= 8 else 2  # 3x3 smoothing up to radius 8, then 5x5, as in ImageNet-C
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    gauss = torch.exp(-(offsets**2) / (2 * alias**2))
    gauss /= gauss.sum()
    smooth = (gauss[:, None] * gauss[None, :])[None, None]
    return functional.conv2d(disk[None, None], smooth, padding=half)[0, 0]


def _binned(kernel: Tensor, scale: float) -> Tensor:
    """The kernel as coarser pixels see it: each fine tap shared linearly by its two neighbours."""
    fine = torch.arange(kernel.shape[0], dtype=torch.float64) - kernel.shape[0] // 2
    reach = int(fine.max() * scale) + 1
    coarse = torch.arange(-reach, reach + 1, dtype=torch.float64)
    share = (1 - (coarse[:, None] - scale * fine[None, :]).abs()).clamp(min=0)
    return share @ kernel @ share.T
