import numpy as np
import pytest
import torch
from scipy import ndimage

from palpate.corruptions.defocus_blur import DefocusBlur, blur_kernel

LEVELS = [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)]  # ImageNet-C, attacks.md 6.5


def imagenet_c(image, radius, alias):
    """The original's recipe, written again with scipy: disk, Gaussian edge, mirrored border."""
    reach = np.arange(-radius - 3, radius + 4)
    x, y = np.meshgrid(reach, reach)
    disk = (x**2 + y**2 <= radius**2).astype(float)
    half = 1 if radius <= 8 else 2
    offsets = np.arange(-half, half + 1)
    gauss = np.exp(-(offsets**2) / (2 * alias**2))
    gauss /= gauss.sum()
    disk = ndimage.convolve(disk, np.outer(gauss, gauss), mode="constant")
    return ndimage.convolve(image, disk / disk.sum(), mode="mirror")


@pytest.mark.parametrize(("severity", "level"), list(enumerate(LEVELS, start=1)))
def test_equals_the_original_at_224(severity, level):
    image = np.random.default_rng(0).random((224, 224))

    ours = DefocusBlur(severity=severity)(torch.tensor(image, dtype=torch.float32)[None, None])

    assert np.abs(ours[0, 0].numpy() - imagenet_c(image, *level)).max() < 1e-5


@pytest.mark.parametrize(("radius", "alias"), LEVELS)
@pytest.mark.parametrize("side", [28, 64, 448])
def test_blur_width_scales_with_the_picture(radius, alias, side):
    """The second moment of the kernel, in shares of the picture, stays what it is at 224."""

    def width(scale):
        kernel = blur_kernel(radius, alias, scale=scale)
        axis = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
        return float((kernel.sum(0) * axis**2).sum()) ** 0.5 / scale

    # binning into coarse pixels adds at most half a coarse pixel of width
    assert width(side / 224) == pytest.approx(width(1.0), rel=0.15, abs=0.51 * max(1, 224 / side))
    assert width(side / 224) >= 0.85 * width(1.0)


def test_flat_pictures_stay_flat():
    flat = torch.full((1, 3, 28, 28), 0.25)

    assert torch.allclose(DefocusBlur(severity=5)(flat), flat, atol=1e-6)


def test_volumes_are_refused():
    with pytest.raises(Exception, match=r"expected images \(batch, channel, height, width\)"):
        DefocusBlur()(torch.rand(1, 1, 8, 8, 8))
