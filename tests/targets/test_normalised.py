import pytest
import torch
from torch import nn

import palpate
from palpate.targets._normalised import normalised

IMAGES = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,), (1.0,)), ((0.5,), (0.25,)), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), ([0.5], [1.0])],
)
def test_is_the_affine_map_of_each_channel(mean, std):
    found = normalised(IMAGES, mean, std, name="model")

    for channel in range(3):
        m, s = mean[channel % len(mean)], std[channel % len(std)]
        assert torch.allclose(found[:, channel], (IMAGES[:, channel] - m) / s, atol=1e-7)


def test_a_module_that_writes_into_its_input_spoils_nothing():
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 2)).eval()
    target = palpate.wrap(module, task=palpate.Classification(("a", "b")))
    points = (IMAGES - 0.5).requires_grad_()

    target.logits(points).sum().backward()

    assert torch.equal(points.detach(), IMAGES - 0.5)
    assert points.grad is not None


def test_what_was_met_without_gradients_serves_with_them():
    with torch.inference_mode():
        normalised(IMAGES, (0.125,), (0.375,), name="model")
    points = IMAGES.clone().requires_grad_()

    normalised(points, (0.125,), (0.375,), name="model").sum().backward()

    assert torch.allclose(points.grad, torch.full_like(IMAGES, 1 / 0.375))
