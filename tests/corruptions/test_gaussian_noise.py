import pytest
import torch

from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.types import Bounds

SIGMAS = [0.08, 0.12, 0.18, 0.26, 0.38]  # ImageNet-C, attacks.md 6.5


@pytest.mark.parametrize(("severity", "sigma"), list(enumerate(SIGMAS, start=1)))
def test_strength_is_the_published_one(severity, sigma):
    images = torch.full((8, 1, 64, 64), 0.5)

    for bounds in (Bounds(0.0, 1.0), Bounds(-4.0, 5.0)):
        moved = GaussianNoise(severity=severity)(images, bounds=bounds) - images
        # half of a normal lies within 0.6745 sigma; unlike the variance, clipping leaves that alone
        found = float(moved.abs().median()) / 0.6745
        assert found == pytest.approx(sigma * (bounds.high - bounds.low), rel=0.03)
        assert float(moved.median()) == pytest.approx(0, abs=0.03 * (bounds.high - bounds.low))


def test_severities_scale_the_same_draw():
    images = torch.full((2, 1, 16, 16), 0.5)
    weak, strong = (GaussianNoise(severity=s)(images) - images for s in (1, 2))
    unclipped = strong.abs() < 0.49

    assert torch.allclose(strong[unclipped], (weak * 1.5)[unclipped], atol=1e-6)
