"""A trained network on real images, as the parity recipe of the field asks for."""

from importlib import resources
from typing import NamedTuple

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.targets.base import Target
from palpate.types import MultiLabel, Segmentation


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
def few():
    weights = resources.files("palpate") / "data" / "resnet18_breastmnist.safetensors"
    parameters = {
        "small_stem": True,
        "arguments": {"channels": [16, 32, 64, 128]},
        "weights": str(weights),
    }
    samples = registry.create("datasets", "medmnist", {}).load(16)
    target = registry.create("targets", "timm", parameters).load(
        task=samples.task, channels=1, bounds=samples.bounds
    )
    batch = samples.batch(range(16))
    return Trained(target, batch.images, batch.references)


@pytest.fixture(scope="session")
def cheap():
    """A network of one convolution, fitted here to 60 real images, for what asks a lot."""
    samples = registry.create("datasets", "medmnist", {}).load(60)
    batch = samples.batch(range(60))
    draw = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2)
    )
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=draw))
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(batch.images), batch.references).backward()
        optimiser.step()
    optimiser.zero_grad()
    return Trained(Target(module.eval(), samples.task), batch.images, batch.references)


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
def network():
    """A small convolutional segmenter, fitted here to bright blobs in noise in under a second."""
    draw = torch.Generator().manual_seed(5)
    axis = torch.arange(24.0)
    centres = 4 + 16 * torch.rand((24, 2), generator=draw)
    squares = (axis[None, :, None] - centres[:, 0, None, None]) ** 2 + (
        axis[None, None, :] - centres[:, 1, None, None]
    ) ** 2
    masks = (squares < 25).long()
    noise = 0.1 * torch.randn((24, 1, 24, 24), generator=draw)
    images = (0.35 + 0.15 * masks.unsqueeze(1) + noise).clamp(0, 1)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU()
    )
    module.append(nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=draw))
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), masks).backward()
        optimiser.step()
    optimiser.zero_grad()
    target = Target(module.eval(), Segmentation(("background", "lesion")))
    return Masked(target, images[:6], masks[:6])


class Labelled(NamedTuple):
    target: Target
    images: torch.Tensor
    labels: torch.Tensor

    def distances(self, norm):
        """(batch, labels): how far each label's plane is; no two labels share a pixel."""
        weight, _ = (tensor.detach() for tensor in self.target.module.parameters())
        dual = weight.abs().sum(1) if norm == "linf" else weight.norm(dim=1)
        return self.target.logits(self.images).detach().abs() / dual

    def least(self, norm, count):
        """(batch,): how far the nearest input is at which so many labels are wrong."""
        near = self.distances(norm).sort(dim=1).values[:, :count]
        return near[:, -1] if norm == "linf" else near.norm(dim=1)

    def wrong(self, images):
        """(batch,): share of wrong labels."""
        return ((self.target.logits(images) > 0).long() != self.labels).float().mean(1)


@pytest.fixture(scope="session")
def labelled():
    """Four labels, each a linear function of a quarter of its own: all optima are known."""
    draw = torch.Generator().manual_seed(7)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    weight = torch.zeros((4, 4, 16))
    weight[range(4), range(4)] = torch.randn((4, 16), generator=draw) * torch.tensor(
        [[1.0], [3.0], [0.5], [2.0]]
    )
    images = 0.5 + 0.1 * (torch.rand((6, 1, 8, 8), generator=draw) - 0.5)
    with torch.no_grad():
        module[1].weight.copy_(weight.flatten(1))
        module[1].bias.copy_(-0.5 * weight.flatten(1).sum(1))
    target = Target(module, MultiLabel(("a", "b", "c", "d")))
    return Labelled(target, images, (target.logits(images) > 0).long())
