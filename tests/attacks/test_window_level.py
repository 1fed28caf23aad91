import itertools

import numpy as np
import pytest
import torch

import palpate
from palpate.attacks.window_level import WindowLevel
from palpate.contracts.oracles import batch, probe
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Bounds, Prediction

CT = Bounds(-1000.0, 1000.0)


def by_hand(image, parameters, bounds, attack):
    """The remapping as DICOM writes it, in numpy: window centre and width in units of the image."""
    share = attack.severity / 5
    span = bounds.high - bounds.low
    level, width, gamma = (share * float(p) for p in parameters)
    centre = (bounds.low + bounds.high) / 2 + level * attack.level * span
    wide = span * attack.width**width
    shown = np.clip((image - centre) / wide + 0.5, 0, 1) ** (attack.gamma**gamma)
    return bounds.low + shown * span


def test_remaps_as_written_down_and_in_units_of_the_bounds():
    draw = torch.Generator().manual_seed(0)
    images = 2000 * torch.rand((20, 1, 4, 4), generator=draw, dtype=torch.float64) - 1000
    parameters = 2 * torch.rand((20, 3), generator=draw, dtype=torch.float64) - 1
    attack = WindowLevel(severity=4.0)

    made = attack.transformed(images, parameters, CT)

    for row in range(20):
        expected = by_hand(images[row].numpy(), parameters[row], CT, attack)
        assert np.allclose(made[row].numpy(), expected, atol=0.2)  # beneath 1e-6 of it, grey is 0
    same = attack.transformed(images, torch.zeros_like(parameters), CT)
    assert torch.allclose(same, images, atol=1e-9)


def test_slopes_are_right():
    images = 0.1 + 0.8 * torch.rand((2, 1, 3, 3), dtype=torch.float64)
    parameters = torch.tensor([[0.1, -0.2, 0.3], [-0.3, 0.5, -0.9]], dtype=torch.float64)
    attack = WindowLevel(severity=3.0)

    assert torch.autograd.gradcheck(
        lambda p: attack.transformed(images, p, Bounds()), parameters.requires_grad_()
    )


def test_a_black_pixel_has_a_slope():
    parameters = torch.zeros((1, 3), requires_grad=True)
    made = WindowLevel(severity=5.0).transformed(torch.zeros((1, 1, 2, 2)), parameters, Bounds())

    assert bool(torch.isfinite(torch.autograd.grad(made.sum(), parameters)[0]).all())


def test_at_least_as_strong_as_a_fine_grid():
    target, given = probe(), batch(12)
    labels = target.logits(given.images).detach().argmax(1)
    attack = WindowLevel(severity=5.0)
    found = attack.search(target, given.images, labels)
    stands = target.logits(found.images).argmax(1) == labels

    assert not bool(stands.all())
    for point in itertools.product(np.linspace(-1, 1, 13), repeat=3):
        parameters = torch.tensor(point, dtype=torch.float32).expand(12, -1)
        moved = attack.transformed(given.images, parameters, target.bounds)
        broken = target.logits(moved).argmax(1) != labels
        assert not bool((broken & stands).any()), point


def test_masks_and_several_labels(thresholds):
    target, images, masks = thresholds
    found = WindowLevel(severity=2.0, places=3)(target, images, masks)
    left = scores(Prediction(target.logits(found).detach(), target.task), masks)
    # a shift of 0.1 in grey at a threshold of 0.5 in uniform noise
    assert float(left.max()) < 0.92

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    task = palpate.MultiLabel(("a", "b", "c"))
    several = palpate.wrap(module.eval(), task=task)
    inputs = torch.rand((4, 1, 4, 4))
    truth = (several.logits(inputs) > 0).long()
    attacked = WindowLevel(severity=5.0)(several, inputs, truth)
    assert float(scores(Prediction(several.logits(attacked).detach(), task), truth).mean()) < 1


def test_what_a_limit_of_nothing_leaves_alone():
    given = batch(4)
    attack = WindowLevel(severity=5.0, level=0.0, width=1.0, gamma=1.0)

    images = attack(probe(), given.images, given.references)

    assert torch.allclose(images, given.images, atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match=r"severity: expected 0 to 5, got 6.0"):
        WindowLevel(severity=6.0)
    with pytest.raises(ConfigError, match="width and gamma of 1 or more"):
        WindowLevel(width=0.5)
    with pytest.raises(ConfigError, match="places: expected 1 or more, got 0"):
        WindowLevel(places=0)
    with pytest.raises(ConfigError, match="steps and restarts of 1 or more, got 0 and 1"):
        WindowLevel(steps=0)
