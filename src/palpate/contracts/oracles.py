"""Small targets whose right answer is known, and the batches to ask them with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from palpate.errors import ContractError
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, Classification

SHAPE = (2, 8, 8)
CLASSES = ("background", "lesion", "artefact")


def expect(condition: bool, message: str) -> None:  # noqa: FBT001 - reads like assert
    """Raise ContractError unless the condition holds."""
    if not condition:
        raise ContractError(message)


class _Probe(nn.Module):
    """A small convolutional network with a skip, a buffer and an in-place operation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(SHAPE[0], 6, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, kernel_size=3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, len(CLASSES))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for tensor in (*self.parameters(), self.norm.running_mean):
                if tensor is not None:
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.act(self.norm(self.first(images)))
        hidden = hidden + self.second(hidden)
        return self.head(self.act(hidden).mean(dim=(2, 3)))


class Linear(nn.Module):
    """One logit z = w · x + b; every optimal attack on it is known in closed form."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channel, height, width) -> (batch, 1)."""
        return (images * self.weight).flatten(1).sum(dim=1, keepdim=True) + self.bias


class Constant(nn.Module):
    """Answers the same whatever it is shown: there is no gradient to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 2.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, ...) -> (batch, 3)."""
        return self.logits.expand(len(images), -1) + 0.0 * images.flatten(1).sum(1, keepdim=True)


def probe() -> Target:
    """A network with everything that a perturbation might forget to restore."""
    return Target(_Probe().eval(), Classification(CLASSES), mean=(0.5,), std=(0.25,), name="probe")


class _RowByRow(nn.Module):
    """Asks the inner model one sample at a time, so that rounding cannot hang on the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.inner(row) for row in images.split(1)])


def row_by_row() -> Target:
    """The probe, with arithmetic that is exactly the same for a batch and for its samples."""
    return probe().with_module(_RowByRow(_Probe()))


def linear() -> Target:
    """Two classes with a single logit, weights from a fixed seed."""
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    return Target(
        Linear(weight, -0.5 * float(weight.sum())).eval(),
        Classification(("negative", "positive")),
        name="linear oracle",
    )


def fewest(images: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
    """How many values of images in [0, 1] must change for w · x to fall by more than the gap.

    Those that can do most are changed first, each as far as the range allows.

    Args:
        images: (batch, channel, height, width).
        weight: of one image's shape.
        gap: (batch,), above 0 where the sum is to fall, below where it is to rise.
    """
    way = -gap.sign().reshape(-1, 1, 1, 1) * weight
    room = torch.where(way > 0, 1 - images, images)
    most = (way.abs() * room).flatten(1).sort(dim=1, descending=True).values
    return (most.cumsum(dim=1) <= gap.abs().unsqueeze(1)).sum(dim=1) + 1


def constant() -> Target:
    """A target that no attack can move."""
    return Target(Constant().eval(), Classification(CLASSES), name="constant")


def batch(count: int = 4, *, classes: int = len(CLASSES), margin: float = 0.0) -> Batch:
    """Samples from a fixed seed.

    Args:
        count: how many.
        classes: labels run from 0 to classes - 1.
        margin: distance of every pixel from the bounds [0, 1].
    """
    generator = torch.Generator().manual_seed(11)
    images = torch.rand((count, *SHAPE), generator=generator) * (1 - 2 * margin) + margin
    names = tuple(f"s{i}" for i in range(count))
    return Batch(
        images=images,
        references=torch.arange(count) % classes,
        samples=names,
        cases=names,
        sites=("",) * count,
    )


def one(whole: Batch, index: int) -> Batch:
    """A single sample of a batch, keeping its id."""
    part = slice(index, index + 1)
    return Batch(
        images=whole.images[part],
        references=whole.references[part],
        samples=whole.samples[part],
        cases=whole.cases[part],
        sites=whole.sites[part],
    )


def raises(kind: type[Exception], action: Callable[[], Any]) -> bool:
    """Whether the action raises this kind of error."""
    try:
        action()
    except kind:
        return True
    return False


UNIT = Bounds(0.0, 1.0)
