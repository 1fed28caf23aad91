"""A trained network on real images, as the parity recipe of the field asks for."""

from importlib import resources
from typing import NamedTuple

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.targets.base import Target
from palpate.types import Segmentation


class Trained(NamedTuple):
    target: Target
    images: torch.Tensor
    labels: torch.Tensor

    @property
    def network(self):
        """Pixels in [0, 1] in, logits out, as other libraries want it."""
        return PixelsIn(self.target).eval()


class PixelsIn(nn.Module):
    def __init__(self, target):
        super().__init__()
        self.module = target.module
        self.target = target

    def forward(self, images):
        return self.target.logits(images)


@pytest.fixture(scope="session")
def trained():
    weights = resources.files("palpate") / "data" / "resnet18_breastmnist.safetensors"
    parameters = {
        "small_stem": True,
        "arguments": {"channels": [16, 32, 64, 128]},
        "weights": str(weights),
    }
    samples = registry.create("datasets", "medmnist", {}).load(64)
    target = registry.create("targets", "timm", parameters).load(
        task=samples.task, channels=1, bounds=samples.bounds
    )
    batch = samples.batch(range(64))
    return Trained(target, batch.images, batch.references)


class Masked(NamedTuple):
    target: Target
    images: torch.Tensor
    masks: torch.Tensor


@pytest.fixture(scope="session")
def thresholds():
    """z = 10 (x - 0.5) per pixel, softmax: every optimal attack on it is known in closed form."""
    module = nn.Conv2d(1, 2, kernel_size=1).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1))
        module.bias.copy_(torch.tensor([0.0, -5.0]))
    task = Segmentation(("background", "lesion"))
    images = torch.rand((3, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    return Masked(Target(module, task), images, (images[:, 0] > 0.5).long())


@pytest.fixture(scope="session")
def few(trained):
    return Trained(trained.target, trained.images[:16], trained.labels[:16])
