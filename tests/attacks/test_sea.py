import pytest
import torch

from palpate.attacks.pgd import Pgd
from palpate.attacks.sea import Sea
from palpate.attacks.segpgd import Segpgd
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Prediction


def dice(target, images, masks):
    return scores(Prediction(target.logits(images).detach(), target.task), masks)


def test_reaches_the_optimum_of_a_pixel_threshold(thresholds):
    target, images, masks = thresholds
    found = Sea(epsilon=0.2, steps=40)(target, images, masks)

    distance = (images[:, 0] - 0.5).abs()
    sure = (distance - 0.2).abs() > 1e-3
    flipped = target.logits(found).argmax(1) != masks
    assert torch.equal(flipped[sure], (distance < 0.2)[sure])


def test_never_weaker_than_one_of_its_losses_nor_than_pgd(network):
    target, images, masks = network
    together = dice(target, Sea(epsilon=0.02, steps=30)(target, images, masks), masks)

    alone = Sea(epsilon=0.02, steps=30, losses=("jsd",))(target, images, masks)
    assert bool((together <= dice(target, alone, masks)).all())
    for attack in (Pgd(epsilon=0.02, steps=20), Segpgd(epsilon=0.02, steps=20)):
        other = dice(target, attack(target, images, masks), masks)
        assert float(together.mean()) <= float(other.mean()) + 0.005


def test_radii_beyond_the_budget_are_never_returned(network):
    target, images, masks = network
    found = Sea(epsilon=0.01, steps=6).search(target, images, masks)

    for iterates in (found.images, found.last):
        assert float((iterates - images).abs().max()) <= 0.01 + 1e-6


def test_bad_settings_are_refused(thresholds):
    with pytest.raises(ConfigError, match="losses: expected at least one"):
        Sea(losses=())
    with pytest.raises(ConfigError, match="got 'dlr'"):
        Sea(losses=("dlr",)).check(thresholds.target)
