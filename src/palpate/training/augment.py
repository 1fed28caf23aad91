"""Random changes of training images: one class per change, each a spec in the recipe's list.

Images are float (batch, channel, height, width) in [0, 1], in and out. Every draw is per image
and comes from the generator that is passed in.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Generator, Tensor
from torch.nn import functional

from palpate import registry
from palpate.errors import nearest

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Amount = Annotated[float, Field(ge=0.0)]


class _Augmentation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    moves: ClassVar[bool] = False
    """Whether pixels change places, so that a mask has to go with them."""


def _uniform(count: int, *, reach: float, generator: Generator) -> Tensor:
    """`count` numbers in [-reach, reach], shaped to multiply images."""
    return (torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1) * reach


class Flip(_Augmentation):
    """Mirror left and right, or top and bottom, with the given probabilities."""

    name: Literal["flip"] = "flip"
    moves: ClassVar[bool] = True
    horizontal: Share = 0.5
    vertical: Share = 0.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Mirror each image or not."""
        for axis, probability in ((-1, self.horizontal), (-2, self.vertical)):
            chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < probability
            images = torch.where(chosen, images.flip(axis), images)
        return images


class Affine(_Augmentation):
    """Rotate up to `degrees`, move up to `translate` of a side, resize up to `scale`.

    Bilinear; what comes in from outside repeats the border.
    """

    name: Literal["affine"] = "affine"
    moves: ClassVar[bool] = True
    degrees: Amount = 10.0
    translate: Share = 0.1
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Warp each image by its own draw."""
        count = len(images)

        def draw(reach: float) -> Tensor:
            return _uniform(count, reach=reach, generator=generator).flatten()

        angle, size = draw(math.radians(self.degrees)), 1 + draw(self.scale)
        # affine_grid measures in half sides.
        right, down = draw(2 * self.translate), draw(2 * self.translate)
        cos, sin = angle.cos() * size, angle.sin() * size
        matrix = torch.stack((cos, -sin, right, sin, cos, down), dim=1).view(count, 2, 3)
        grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


class Intensity(_Augmentation):
    """Add up to `brightness`, multiply the distance from mid-grey by 1 plus up to `contrast`."""

    name: Literal["intensity"] = "intensity"
    brightness: Amount = 0.1
    contrast: Share = 0.2

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Change each image by its own draw, then clamp to [0, 1]."""
        count = len(images)
        offset = _uniform(count, reach=self.brightness, generator=generator)
        factor = 1 + _uniform(count, reach=self.contrast, generator=generator)
        return ((images - 0.5) * factor + 0.5 + offset).clamp(0.0, 1.0)


class Noise(_Augmentation):
    """Add Gaussian noise of a deviation drawn from 0 to `deviation`."""

    name: Literal["noise"] = "noise"
    deviation: Amount = 0.05

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Noise each image by its own deviation, then clamp to [0, 1]."""
        deviation = torch.rand(len(images), 1, 1, 1, generator=generator) * self.deviation
        noise = torch.randn(images.shape, generator=generator)
        return (images + noise * deviation).clamp(0.0, 1.0)


class Blur(_Augmentation):
    """Blur by a Gaussian of a deviation drawn from 0 to `deviation` pixels."""

    name: Literal["blur"] = "blur"
    deviation: Amount = 1.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Blur each image by its own deviation; the border is repeated."""
        count, channels = images.shape[:2]
        radius = math.ceil(3 * self.deviation)
        deviation = torch.rand(count, 1, generator=generator) * self.deviation
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernels = torch.exp(-0.5 * (offsets / deviation.clamp(min=1e-3)).square())
        kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
        padded = functional.pad(images, (radius,) * 4, mode="replicate")
        flat = padded.reshape(1, count * channels, *padded.shape[2:])
        for kernel in (kernels[:, None, None, :], kernels[:, None, :, None]):
            flat = functional.conv2d(flat, kernel, groups=count * channels)
        return flat.reshape(images.shape).clamp(0.0, 1.0)


class Corrupt(_Augmentation):
    """Pass each image, with `probability`, through one of this repository's corruptions.

    Which one, and its severity from 1 to `severity`, are drawn for each image. An audit with the
    same corruptions then measures what the model was trained on, and says nothing of others.
    """

    name: Literal["corrupt"] = "corrupt"
    corruptions: tuple[str, ...] = ("gaussian_noise", "defocus_blur")
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    probability: Share = 0.5

    @field_validator("corruptions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.names("corruptions")
        for name in names:
            if name not in known:
                raise ValueError(f"no corruption named {name!r}; {nearest(name, known)}")
        if not names:
            raise ValueError("expected at least one corruption")
        return names

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Corrupt each chosen image by its own draw."""
        count = len(images)
        chosen = torch.rand(count, generator=generator) < self.probability
        kinds = torch.randint(len(self.corruptions), (count,), generator=generator).tolist()
        levels = torch.randint(1, self.severity + 1, (count,), generator=generator).tolist()
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        changed = images.clone()
        for i in torch.nonzero(chosen).flatten().tolist():
            setting = {"severity": levels[i]}
            corruption = registry.create("corruptions", self.corruptions[kinds[i]], setting)
            changed[i : i + 1] = corruption(images[i : i + 1], seeds=[seeds[i]])
        return changed


class Erase(_Augmentation):
    """Hide, with `probability`, one square of up to `side` of the image's side behind mid-grey."""

    name: Literal["erase"] = "erase"
    probability: Share = 0.5
    side: Share = 0.4

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Hide one square in each chosen image."""
        count, _, height, width = images.shape
        chosen = torch.rand(count, 1, 1, 1, generator=generator) < self.probability
        half = torch.rand(count, 1, 1, 1, generator=generator) * self.side / 2
        row, column = torch.rand(2, count, 1, 1, 1, generator=generator)
        rows = ((torch.arange(height) + 0.5) / height).view(1, 1, -1, 1)
        columns = ((torch.arange(width) + 0.5) / width).view(1, 1, 1, -1)
        inside = ((rows - row).abs() < half) & ((columns - column).abs() < half)
        return torch.where(inside & chosen, 0.5, images)


Augmentation = Annotated[
    Flip | Affine | Intensity | Noise | Blur | Corrupt | Erase, Field(discriminator="name")
]


def augmented(
    images: Tensor, masks: Tensor, changes: tuple[Augmentation, ...], generator: Generator
) -> tuple[Tensor, Tensor]:
    """Change images, and move their masks along.

    Args:
        images: (batch, channel, height, width) in [0, 1].
        masks: label maps (batch, height, width) or 0/1 planes (batch, classes, height, width).
        changes: applied in this order.
        generator: source of every draw.

    Returns:
        Both; what a mask shows between two pixels goes to the class with the larger share.
    """
    channels, maps = images.shape[1], masks.ndim == 3
    planes = functional.one_hot(masks.long()).movedim(-1, 1) if maps else masks
    joined = torch.cat([images, planes.to(images.dtype)], dim=1)
    for change in changes:
        if change.moves:
            joined = change(joined, generator)
        else:
            joined = torch.cat(
                [change(joined[:, :channels], generator), joined[:, channels:]], dim=1
            )
    moved = joined[:, channels:]
    found = moved.argmax(dim=1) if maps else (moved > 0.5).long()
    return joined[:, :channels], found.to(masks.dtype)
