"""A trained network on real images, as the parity recipe of the field asks for."""

from importlib import resources
from typing import NamedTuple

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.targets.base import Target


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
