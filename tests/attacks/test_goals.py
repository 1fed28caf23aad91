import pytest
import torch

from palpate.attacks._goal import aimed_at
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, probe
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Prediction, Segmentation

TWO = Segmentation(("background", "a", "b"))
PLANES = Segmentation(("a", "b"), exclusive=False)


def square(at, side=4, size=32, label=1):
    mask = torch.zeros((1, size, size), dtype=torch.long)
    mask[0, at : at + side, at : at + side] = label
    return mask


def test_erase_leaves_nothing():
    assert int(aimed_at("erase", square(4), TWO).sum()) == 0


def test_shift_keeps_the_area():
    aim = aimed_at("shift", square(4), TWO)

    assert torch.equal(aim[0, :, 8:], square(4)[0, :, :-8])
    assert int(aim.sum()) == 16


def test_grow_dilates_and_never_overwrites():
    mask = square(8, label=1) + square(16, label=2)
    aim = aimed_at("grow", mask, TWO)

    assert torch.equal(aim[mask > 0], mask[mask > 0])
    assert int((aim == 2).sum()) == 64
    assert int((aim == 1).sum()) == 64


@pytest.mark.parametrize("mask", [square(2), torch.zeros((1, 32, 32), dtype=torch.long)])
def test_phantom_adds_one_disk_away_from_what_is_there(mask):
    aim = aimed_at("phantom", mask, TWO)
    new = (aim != mask).nonzero()[:, 1:].float()

    assert torch.equal(aim[mask > 0], mask[mask > 0])
    assert 9 <= len(new) <= 16  # radius 2
    assert float(torch.cdist(new, (mask[0] > 0).nonzero().float()).min()) > 10 if mask.any() else 1


def test_phantom_in_planes_and_in_volumes():
    planes = torch.zeros((2, 2, 16, 16), dtype=torch.long)
    volume = torch.zeros((1, 8, 16, 16), dtype=torch.long)

    assert aimed_at("phantom", planes, PLANES)[:, 0].flatten(1).sum(1).min() > 0
    assert int(aimed_at("phantom", planes, PLANES)[:, 1].sum()) == 0
    assert int(aimed_at("phantom", volume, TWO).sum()) > 0


@pytest.mark.parametrize("goal", ["erase", "shift", "grow", "phantom"])
@pytest.mark.parametrize("loss", ["ce", "dice_ce", "cospgd"])
def test_an_unlimited_attack_draws_the_mask_that_it_wants(thresholds, goal, loss):
    target, images, masks = thresholds
    masks = torch.where(masks > 0, 1, 0)
    attack = Pgd(epsilon=0.999, steps=30, goal=goal, loss=loss, random_start=False)

    found = attack(target, images, masks)

    aim = aimed_at(goal, masks, target.task)
    drawn = Prediction(target.logits(found).detach(), target.task)
    assert float(scores(drawn, aim).min()) > 0.97


def test_a_mask_as_the_goal_needs_masks():
    given = batch(2)
    with pytest.raises(ConfigError, match="goal: expected 'break' for Classification, got 'erase'"):
        Pgd(goal="erase")(probe(), given.images, given.references)
