import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.optimize import minimize

import palpate
from palpate.attacks._splines import control_points, field, weights
from palpate.attacks.adversarial_bias_field import AdversarialBiasField
from palpate.contracts.oracles import Linear, batch
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Bounds, Prediction


def splines(side, spans):
    """Cubic B-splines of scipy at the centres of the pixels."""
    knots = np.arange(-3, spans + 4)
    places = (np.arange(side) + 0.5) / side * spans
    return BSpline.design_matrix(places, knots, 3).toarray()


def linear(weight, bias=0.0):
    return palpate.wrap(
        Linear(weight, bias).eval(), task=palpate.Classification(("negative", "positive"))
    )


@pytest.mark.parametrize(("side", "spans"), [(8, 1), (9, 2), (28, 5), (3, 4)])
def test_weights_are_those_of_scipy(side, spans):
    made = weights(side, spans=spans, like=torch.zeros(1, dtype=torch.float64)).numpy()

    assert np.allclose(made, splines(side, spans))
    assert np.allclose(made.sum(axis=1), 1)
    assert made.min() >= 0


def test_slopes_are_right():
    images = 0.1 + 0.3 * torch.rand((2, 1, 5, 4), dtype=torch.float64)
    attack = AdversarialBiasField(severity=4.0)
    parameters = torch.rand((2, attack.count(images)), dtype=torch.float64) - 0.5

    assert torch.autograd.gradcheck(
        lambda p: attack.transformed(images, p, Bounds()), parameters.requires_grad_()
    )


def test_the_field_keeps_its_limit_and_zero_is_no_field():
    images = torch.full((64, 1, 16, 12), 0.3, dtype=torch.float64)
    attack = AdversarialBiasField(severity=2.0, spans=3)
    corners = torch.randint(0, 2, (64, attack.count(images))).double() * 2 - 1
    log = (attack.transformed(images, corners, Bounds()) / images).log()

    assert float(log.abs().max()) <= 0.2 + 1e-12
    still = attack.transformed(images, torch.zeros_like(corners), Bounds())
    assert torch.equal(still, images)


def test_closed_form_where_all_weights_have_one_sign():
    """The most that the field can do to Σ w x with w > 0 is its limit everywhere: a gain."""
    weight = torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(1))
    images = 0.5 * batch(6).images[:, :1]
    total = (images * weight).flatten(1).sum(1)
    target = linear(weight, -float(total.mean()))
    labels = target.logits(images).detach().argmax(1)

    found = AdversarialBiasField(severity=5.0)(target, images, labels)

    gain = (found * weight).flatten(1).sum(1) / total
    expected = torch.where(labels == 1, math.exp(-0.5), math.exp(0.5))
    assert set(labels.tolist()) == {0, 1}
    assert torch.allclose(gain, expected, rtol=1e-5)


def test_as_strong_as_a_solver_where_signs_are_mixed():
    draw = torch.Generator().manual_seed(4)
    weight = torch.randn((1, 4, 4), generator=draw).repeat_interleave(3, 1).repeat_interleave(3, 2)
    images = 0.1 + 0.4 * torch.rand((4, 1, 12, 12), generator=draw)
    target = linear(weight, 10.0)
    attack = AdversarialBiasField(severity=5.0)

    found = attack(target, images, torch.ones(4, dtype=torch.long))

    basis = splines(12, 1)
    for image, moved in zip(images.numpy(), found.numpy(), strict=True):

        def value(points, image=image):
            log = 0.5 * basis @ points.reshape(4, 4) @ basis.T
            return float((image[0] * np.exp(log) * weight[0].numpy()).sum())

        best = min(
            minimize(value, start, bounds=[(-1, 1)] * 16).fun
            for start in (np.zeros(16), np.full(16, 0.7), np.full(16, -0.7))
        )
        clean = value(np.zeros(16))
        reached = float((moved[0] * weight[0].numpy()).sum())
        assert (clean - reached) / (clean - best) > 0.97


def test_volumes_masks_and_several_channels(thresholds):
    cube = 0.2 + 0.5 * torch.rand((2, 2, 6, 5, 4))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(240, 2)).eval()
    target = palpate.wrap(net, task=palpate.Classification(("a", "b")))
    found = AdversarialBiasField(severity=1.0)(target, cube, torch.tensor([0, 1]))
    ratio = (found / cube).log()
    assert torch.allclose(ratio[:, 0], ratio[:, 1], atol=1e-4)
    assert float(ratio.abs().max()) <= 0.1 + 1e-4
    assert control_points(2, 3) == (5, 5, 5)
    assert field(torch.ones((1, 4, 4, 4)), (6, 5, 4), spans=1).shape == (1, 6, 5, 4)

    segmenter, images, masks = thresholds
    attacked = AdversarialBiasField(severity=5.0)(segmenter, images, masks)
    left = scores(Prediction(segmenter.logits(attacked).detach(), segmenter.task), masks)
    # a gain of 0.61 leaves 0.18 of the 0.5 of evenly spread grey that were above a half
    assert float(left.mean()) < 2 * 0.18 / (0.18 + 0.5) + 0.05


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="strength above 0 and spans of 1 or more, got 0"):
        AdversarialBiasField(strength=0.0)
    with pytest.raises(ConfigError, match="got 0.5 and 0"):
        AdversarialBiasField(spans=0)
