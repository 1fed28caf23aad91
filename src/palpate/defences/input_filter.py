"""Filter the image before the model sees it: median, fewer grey levels, or a JPEG file.

Xu, Evans, Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
arXiv 1704.01155, section 3 (bit depth, median smoothing). Dziugaite, Ghahramani, Roy, "A study of
the effect of JPG compression on adversarial images", arXiv 1608.00853 (JPEG).

Filters without a useful gradient look robust when they only hide it; gradients therefore pass
straight through rounding and files (Athalye, Carlini, Wagner, "Obfuscated Gradients Give a False
Sense of Security", arXiv 1802.00420, section 4.1, BPDA with the identity), so that every attack on
the protected target is adaptive. The median has a gradient, that of the pixel it picks, and an
attack that follows it is the stronger one.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from palpate.defences.base import Defence
from palpate.errors import CapabilityError, ConfigError
from palpate.filing import jpeg
from palpate.storage import USUAL_QUALITY
from palpate.targets.base import Target
from palpate.types import Bounds, Images


@final
@dataclass(frozen=True)
class InputFilter(Defence):
    """The target behind a filter.

    Attributes:
        kind: "median" over a square window, "bit_depth" rounding to 2^bits grey levels, or "jpeg",
            written and read by Pillow on the 256 grey levels of the bounds: one channel as grey,
            three as colour subsampled 4:2:0, two dimensions.
        size: side of the median's window in pixels, odd.
        bits: grey levels kept, as a power of two, 1 to 8.
        quality: of JPEG, 1 to 95.
    """

    version = 2

    kind: Literal["median", "bit_depth", "jpeg"] = "median"
    size: int = 3
    bits: int = 4
    quality: int = USUAL_QUALITY

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ConfigError(f"size: expected an odd number of pixels, got {self.size}")
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"bits: expected 1 to 8, got {self.bits}")
        if not 1 <= self.quality <= 95:
            raise ConfigError(f"quality: expected 1 to 95, got {self.quality}")

    @override
    def protect(self, target: Target) -> Target:
        return target.with_module(_Filtered(target, self))


class _Filtered(nn.Module):
    """Undo the normalisation, filter, normalise again, ask the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, target: Target, how: InputFilter) -> None:
        super().__init__()
        self.inner = target.module
        self.how = how
        self.bounds = target.bounds
        self.register_buffer("mean", torch.tensor(target.mean), persistent=False)
        self.register_buffer("std", torch.tensor(target.std), persistent=False)

    def forward(self, normalised: Tensor, *asked: Tensor) -> Tensor:
        """Same input and output as the model inside."""
        shape = (1, -1, *(1 for _ in normalised.shape[2:]))
        mean, std = self.mean.reshape(shape), self.std.reshape(shape)
        images = normalised * std + mean
        filtered = _filtered(images, self.how, self.bounds)
        if self.how.kind != "median":
            filtered = images + (filtered - images).detach()
        return self.inner((filtered - mean) / std, *asked)

    @override
    def extra_repr(self) -> str:
        return repr(self.how)


def _filtered(images: Images, how: InputFilter, bounds: Bounds) -> Images:
    if how.kind == "median":
        return _median(images, how.size)
    if how.kind == "jpeg":
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise CapabilityError(
                "input_filter: jpeg: expected images (batch, 1 or 3 channels, height, width),"
                f" got {tuple(images.shape)}"
            )
        return jpeg(images, bounds, quality=how.quality)
    levels = 2**how.bits - 1
    width = bounds.high - bounds.low
    return ((images - bounds.low) / width * levels).round() / levels * width + bounds.low


def _median(images: Images, size: int) -> Images:
    if images.ndim != 4:
        raise CapabilityError(
            f"input_filter: expected images (batch, channel, height, width),"
            f" got {tuple(images.shape)}"
        )
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (size // 2,) * 4, mode="reflect")
    if size == 3:
        return _median_of_nine(padded)
    windows = functional.unfold(padded, size).reshape(batch, channels, size * size, height, width)
    return windows.median(dim=2).values


def _median_of_nine(padded: Tensor) -> Tensor:
    """Median of the highest low, the middle middle and the lowest high of three sorted columns.

    Paeth, "Median finding on a 3x3 grid", Graphics Gems, 1990. In place of a general selection: 30
    times as fast on a CPU.
    """
    low, middle, high = _sorted(padded, dim=2)
    highest_low, lowest_high = _sorted(low, dim=3)[2], _sorted(high, dim=3)[0]
    return _sorted_three(highest_low, _sorted(middle, dim=3)[1], lowest_high)[1]


def _sorted(values: Tensor, *, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every three neighbours, in order."""
    count = values.shape[dim] - 2
    return _sorted_three(*(values.narrow(dim, i, count) for i in range(3)))


def _sorted_three(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    return torch.minimum(a, b), torch.maximum(a, b), c
