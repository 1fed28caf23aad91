import pytest
import torch

from palpate.attacks.pgd import Pgd
from palpate.attacks.segpgd import Segpgd
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Prediction


def test_is_pgd_with_its_loss(thresholds):
    target, images, masks = thresholds
    options = {"epsilon": 0.05, "steps": 4, "goal": "erase"}
    named = Segpgd(**options)(target, images, masks)

    assert torch.equal(named, Pgd(loss="segpgd", **options)(target, images, masks))


def test_reaches_the_optimum_of_a_pixel_threshold(thresholds):
    target, images, masks = thresholds
    last = Segpgd(epsilon=0.3).search(target, images, masks).last

    distance = (images[:, 0] - 0.5).abs()
    sure = (distance - 0.3).abs() > 1e-4
    flipped = target.logits(last).argmax(1) != masks
    assert torch.equal(flipped[sure], (distance < 0.3)[sure])


def test_at_least_as_strong_as_plain_pgd_where_wrong_pixels_pull(network):
    """Few steps on a small trained segmenter: plain cross-entropy wastes them on wrong pixels."""
    target, images, masks = network
    dice = {}
    for attack in (Segpgd(epsilon=0.02, steps=5), Pgd(epsilon=0.02, steps=5)):
        logits = target.logits(attack(target, images, masks)).detach()
        dice[type(attack)] = float(scores(Prediction(logits, target.task), masks).mean())

    assert dice[Segpgd] <= dice[Pgd] + 0.01


def test_has_one_loss():
    with pytest.raises(ConfigError, match="steps: expected 1 or more, got 0"):
        Segpgd(steps=0)
