import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from palpate.attacks._lagrangian import Lagrangian, penalty, slope
from palpate.attacks._projection import size
from palpate.attacks._prox import prox_linf
from palpate.attacks.alma_prox import AlmaProx
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.targets.base import Target
from palpate.types import Bounds, Segmentation


class Slopes(nn.Module):
    """z = a (x − b) with a slope a per pixel and plane: flipping it takes |z| / a exactly."""

    def __init__(self, planes, side, low=0.0, width=1.0):
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.slope = nn.Parameter(1 + 40 * torch.rand((1, planes, side, side), generator=draw))
        self.middle, self.two = low + 0.5 * width, planes == 1

    def forward(self, images):
        z = self.slope * (images - self.middle)
        return torch.cat([torch.zeros_like(z), z], dim=1) if self.two else z


def wrong(target, images, references):
    decided = target.logits(images).detach()
    decided = decided.argmax(1) if target.task.exclusive else (decided > 0).long()
    return (decided != references).flatten(1).float().mean(1)


def least(distances, share):
    """Distance of the pixel that is the last to be needed."""
    flat = distances.flatten(1).sort(dim=1).values
    return flat[:, math.ceil(share * flat.shape[1] - 1e-6) - 1]


@pytest.mark.parametrize(("pixels", "bounds"), [(0.99, (0.0, 1.0)), (0.6, (-1000.0, 400.0))])
def test_closed_form_on_a_pixel_threshold(pixels, bounds):
    low, width = bounds[0], bounds[1] - bounds[0]
    module = Slopes(1, 12, low, width).eval()
    target = Target(module, Segmentation(("background", "lesion")), Bounds(*bounds))
    images = low + width * torch.rand((3, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    references = (images[:, 0] > module.middle).long()

    found = AlmaProx(pixels=pixels, steps=80)(target, images, references)

    best = least((images - module.middle).abs(), pixels)
    ratio = size(found - images, "linf") / best
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02
    assert bool((wrong(target, found, references) >= pixels).all())


def test_closed_form_on_planes_that_overlap(thresholds):
    """Each plane has a slope of its own; the largest change is shared by all planes."""
    target = Target(Slopes(3, 12).eval(), Segmentation(("a", "b", "c"), exclusive=False))
    images = torch.rand((2, 3, 12, 12), generator=torch.Generator().manual_seed(1))
    references = (images > 0.5).long()

    found = AlmaProx(pixels=0.9, steps=80)(target, images, references)

    ratio = size(found - images, "linf") / least((images - 0.5).abs(), 0.9)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


def test_closed_form_with_three_classes():
    """Logits z, 0 and −z: their DLR⁺ is ½ whatever z, so its own gradient would be none."""
    module = nn.Conv2d(1, 3, kernel_size=1).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([8.0, 0.0, -8.0]).reshape(3, 1, 1, 1))
        module.bias.copy_(torch.tensor([-4.0, 0.0, 4.0]))
    target = Target(module, Segmentation(("a", "b", "c")))
    images = torch.rand((2, 1, 12, 12), generator=torch.Generator().manual_seed(3))
    references = torch.where(images[:, 0] > 0.5, 0, 2)

    found = AlmaProx(steps=80)(target, images, references)

    ratio = size(found - images, "linf") / least((images - 0.5).abs(), 0.99)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


@pytest.fixture(scope="module")
def smooth():
    """A small network fitted to two kinds of blobs, without units that can die."""
    draw = torch.Generator().manual_seed(5)
    axis = torch.arange(20.0)
    masks = torch.zeros((16, 20, 20), dtype=torch.long)
    for label in (1, 2):
        row, column = (4 + 12 * torch.rand((2, 16, 1, 1), generator=draw)).unbind()
        inside = (axis[None, :, None] - row) ** 2 + (axis[None, None, :] - column) ** 2 < 20
        masks[inside] = label
    noise = 0.05 * torch.randn((16, 1, 20, 20), generator=draw)
    images = (0.35 + 0.2 * masks.unsqueeze(1) + noise).clamp(0, 1)
    module = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.SiLU(), nn.Conv2d(6, 3, 1))
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=draw))
    optimiser = torch.optim.Adam(module.parameters(), 0.03)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), masks).backward()
        optimiser.step()
    optimiser.zero_grad()
    target = Target(module.eval(), Segmentation(("background", "a", "b")))
    return target, images[:4], masks[:4]


def test_nearer_than_bisection_over_pgd_on_a_network(smooth):
    target, images, masks = smooth
    found = AlmaProx(steps=80)(target, images, masks)
    assert bool((wrong(target, found, masks) >= 0.99).all())

    options = {"criterion": "pixel_success", "bar": 0.99, "loss": "segpgd"}
    other = MinimalEpsilon(**options)(target, images, masks)
    ours, theirs = (size(x - images, "linf") for x in (found, other))
    assert float((ours / theirs).max()) < 1.0


def test_an_epsilon_brings_what_is_farther_back_to_it(thresholds):
    target, images, masks = thresholds
    found = AlmaProx(steps=100, epsilon=0.3).search(target, images, masks)

    assert size(found.images - images, "linf").tolist() == pytest.approx([0.3] * 3, abs=1e-6)
    assert set(found.status) == {Status.OK}
    # the pixels within reach are still those that were turned wrong
    near = (images[:, 0] - 0.5).abs() < 0.299
    decided = target.logits(found.images).argmax(1)
    assert bool((decided != masks)[near].float().mean() > 0.95)


def test_a_mask_that_is_wrong_already_stays_as_it_is(thresholds):
    target, images, masks = thresholds
    found = AlmaProx(steps=5)(target, images, 1 - masks)

    assert torch.equal(found, images)


def test_the_prox_is_the_minimum_that_a_search_over_its_largest_value_finds():
    draw = torch.Generator().manual_seed(0)
    for number in range(60):
        shape = (1, 1, 1 + number % 7)
        points = torch.randn(shape, generator=draw, dtype=torch.float64)
        metric = 3 * torch.rand(shape, generator=draw, dtype=torch.float64) + 0.05
        low, high = (1.5 * torch.rand(shape, generator=draw).double() for _ in range(2))
        low = -low * (number % 3 > 0)  # a pixel at its bound cannot move down
        weight = 2 * torch.rand(1, generator=draw).double() * (number % 5 > 0)

        def cost(z, points=points, metric=metric, weight=weight):
            return float((0.5 * metric * (z - points) ** 2).sum() + weight * z.abs().max())

        inside = torch.minimum(torch.maximum(points, low), high)
        found = prox_linf(points, metric=metric, weight=weight, low=low, high=high)
        best = minimize_scalar(
            lambda t, inside=inside, cost=cost: cost(inside.clamp(-t, t)),
            bounds=(0, float(inside.abs().max()) + 1e-12),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert bool(((low <= found) & (found <= high)).all())
        assert cost(found) <= best.fun + 1e-9


def test_the_slope_is_the_derivative_of_the_penalty():
    """The released code has μ y for μ above 0; finite differences tell the two apart."""
    y = torch.linspace(-2, 2, 81, dtype=torch.float64).requires_grad_()
    stiffness, multiplier = torch.full_like(y, 1.5).detach(), torch.full_like(y, 0.7).detach()
    (exact,) = torch.autograd.grad(penalty(y, stiffness, multiplier).sum(), y)

    assert torch.allclose(slope(y.detach(), stiffness, multiplier), exact)
    at = torch.tensor([0.3, 1.2], dtype=torch.float64)
    found = slope(at, stiffness[:2], multiplier[:2])
    assert found.tolist() == pytest.approx([1.43125, 4.84], abs=1e-9)
    assert float(slope(at * 0, stiffness[:2], multiplier[:2])[0]) == pytest.approx(0.7)


def test_the_lagrangian_stiffens_what_does_not_get_on_and_lets_the_worst_go():
    state = Lagrangian(torch.ones((1, 10), dtype=torch.float64), may_fail=0.2, steps=40)
    values = torch.tensor([[-1.0] * 4 + [1.0] * 4 + [9.0] * 2])
    for _ in range(40):
        total = state(values, broken=torch.tensor([False]))

    assert bool((state.stiffness[0, :4] == 0.01).all())
    assert bool((state.stiffness[0, 4:8] > 0.01).all())
    # a scale of at most 1, multipliers that grew where the constraint fails and fell elsewhere
    assert float(state.scale) == 1.0
    assert float(state.multiplier[0, :4].max()) < 0.01
    kept = penalty(values[:, :8].double(), state.stiffness[:, :8], state.multiplier[:, :8])
    assert float(total) == pytest.approx(float(kept.sum()))


@pytest.mark.parametrize(("pixels", "count"), [(0.01, 1), (0.75, 3), (0.99, 4)])
def test_closed_form_on_several_labels(labelled, pixels, count):
    target, images, labels = labelled
    found = AlmaProx(pixels=pixels, steps=80)(target, images, labels)

    assert bool((labelled.wrong(found) >= count / 4).all())
    ratio = size(found - images, "linf") / labelled.least("linf", count)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.03


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="share of the pixels above 0, at most 1, got 1.5"):
        AlmaProx(pixels=1.5)
