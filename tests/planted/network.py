"""The network of `honest.yaml`: three convolutions, 28 x 28 grey images in, two logits out."""

from torch import nn

WIDTH = 12


def make():
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 5, stride=2, padding=2),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1),
        nn.BatchNorm2d(2 * WIDTH),
        nn.ReLU(),
        nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, stride=2, padding=1),
        nn.BatchNorm2d(4 * WIDTH),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * WIDTH, 2),
    )
