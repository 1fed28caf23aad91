import numpy as np
import pytest
import torch
from scipy import ndimage

import palpate
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, probe
from palpate.defences.input_filter import InputFilter
from palpate.errors import ConfigError


class Echo(torch.nn.Module):
    """Answers with the mean of what it is shown, per channel."""

    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, images):
        self.seen = images.detach()
        return images.mean(dim=(2, 3))


def seen(defence, images, **preprocessing):
    echo = Echo().eval()
    task = palpate.Classification(("a", "b"))
    target = defence.protect(palpate.wrap(echo, task=task, **preprocessing))
    target.logits(images)
    return echo.seen


def test_median_equals_scipy():
    images = torch.rand(2, 2, 9, 7)

    found = seen(InputFilter(size=3), images)

    expected = ndimage.median_filter(images.numpy(), size=(1, 1, 3, 3), mode="mirror")
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_bit_depth_keeps_that_many_levels_inside_the_bounds():
    images = torch.rand(1, 2, 64, 64) * 1400 - 1000

    found = seen(
        InputFilter(kind="bit_depth", bits=3), images, bounds=(-1000.0, 400.0), std=(500.0,)
    )

    assert len((found * 500).round().unique()) == 8


def test_normalisation_happens_once():
    images = torch.full((1, 2, 8, 8), 0.25)

    found = seen(InputFilter(), images, mean=(0.5,), std=(0.5,))

    assert torch.allclose(found, torch.full_like(found, -0.5))


def test_straight_through_gradient_beats_the_filter():
    """Attacked through its rounding, the filter is no wall: the adaptive attack does its work."""
    given = batch(16)
    protected = InputFilter(kind="bit_depth", bits=2).protect(probe())
    labels = protected.predict(given).decisions

    attacked = Pgd(epsilon=0.5, steps=10)(protected, given.images, labels)

    changed = protected.predict(given.with_images(attacked)).decisions != labels
    assert float(changed.float().mean()) > 0.3


@pytest.mark.parametrize(("wrong", "message"), [({"size": 2}, "odd"), ({"bits": 0}, "1 to 8")])
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        InputFilter(**wrong)
