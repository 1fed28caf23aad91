import pytest
import torch
from torch.nn import functional

import palpate
from palpate.attacks._gradient import Search
from palpate.attacks.adversarial_patch import AdversarialPatch
from palpate.contracts.oracles import batch, linear
from palpate.errors import BudgetError, ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.types import Prediction


def optimum(images, labels, weight, side):
    """Largest change of the logit that a patch anywhere can make, by its definition."""
    signs = (1 - 2 * labels).reshape(-1, 1, 1, 1)
    towards = (signs * weight > 0).float()
    gain = (signs * weight * (towards - images)).sum(dim=1, keepdim=True)
    sums = functional.conv2d(gain, torch.ones(1, 1, side, side))
    return sums.flatten(1)


def change(target, before, after, labels):
    return ((target.logits(after) - target.logits(before)).detach()[:, 1]) * (1 - 2 * labels)


@pytest.fixture
def oracle():
    target, given = linear(), batch(8)
    labels = target.logits(given.images).detach().argmax(1)
    weight = target.module.get_parameter("weight").detach()
    return target, given.images, labels, weight


def test_closed_form_on_a_linear_model_at_the_best_place(oracle):
    target, images, labels, weight = oracle
    found = AdversarialPatch(coverage=9 / 64)(target, images, labels)

    best = optimum(images, labels, weight, 3).amax(dim=1)
    assert torch.allclose(change(target, images, found, labels), best, rtol=1e-4)
    assert int((found != images).any(1).flatten(1).sum(1).max()) <= 9


@pytest.mark.parametrize("placement", ["centre", "random"])
def test_signs_of_the_weights_at_any_other_place(oracle, placement):
    target, images, labels, weight = oracle
    found = AdversarialPatch(coverage=9 / 64, placement=placement)(target, images, labels)

    every = optimum(images, labels, weight, 3)
    if placement == "centre":
        expected = every.reshape(8, 6, 6)[:, 2, 2]
        assert torch.allclose(change(target, images, found, labels), expected, rtol=1e-4)
        return
    apart = (every - change(target, images, found, labels).unsqueeze(1)).abs()
    assert float(apart.amin(dim=1).max()) < 1e-4
    assert len(set(apart.argmin(dim=1).tolist())) > 2  # a place for each sample


def test_more_starts_look_at_other_places(oracle):
    target, images, _, weight = oracle
    with torch.no_grad():
        target.module.get_parameter("bias").add_(14.0)  # nothing breaks: all starts are made
    labels = torch.ones(8, dtype=torch.long)
    attack = AdversarialPatch(coverage=9 / 64, restarts=3)

    found = attack.search(target, images, labels)

    stands = target.logits(found.images).argmax(1) == 1
    stands &= target.logits(images)[:, 1] < 16  # beyond, cross-entropy has no slope in float32
    assert int(stands.sum()) > 3
    best = optimum(images, labels, weight, 3).amax(dim=1)
    reached = change(target, images, found.images, labels)
    assert torch.allclose(reached[stands], best[stands], rtol=1e-4)
    # the last start was at the third best place, away from the first
    elsewhere = ((found.last != images) & (found.images == images)).flatten(1).any(1)
    assert bool(elsewhere[stands].all())


def test_half_of_28_pixels_is_14_and_volumes_have_cubes():
    sides = AdversarialPatch(coverage=0.25)._sides(torch.zeros(1, 1, 28, 40))
    assert sides == (14, 20)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 6**3, 2)).eval()
    target = palpate.wrap(net, task=palpate.Classification(("a", "b")))
    cubes = torch.rand((2, 2, 6, 6, 6))
    for placement in ("salient", "random", "centre"):
        attack = AdversarialPatch(coverage=0.125, placement=placement, steps=3)
        moved = (attack(target, cubes, torch.tensor([0, 1])) != cubes).any(1)
        assert int(moved.flatten(1).sum(1).max()) <= 27


def test_masks_and_several_labels(thresholds):
    target, images, masks = thresholds
    attack = AdversarialPatch(coverage=0.25, placement="centre")
    found = attack(target, images, masks)
    answer = target.logits(found).argmax(1)
    # a threshold can be turned in every pixel under the patch, and nowhere else
    assert bool((answer != masks)[:, 4:12, 4:12].all())
    assert int((answer != masks).sum()) == 3 * 64

    erased = AdversarialPatch(coverage=1.0, goal="erase")(target, images, masks)
    assert int(target.logits(erased).argmax(1).sum()) == 0

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    task = palpate.MultiLabel(("a", "b", "c"))
    several = palpate.wrap(module, task=task)
    inputs = torch.rand((4, 1, 4, 4))
    truth = (several.logits(inputs) > 0).long()
    attacked = AdversarialPatch(coverage=1.0)(several, inputs, truth)
    assert float(scores(Prediction(several.logits(attacked).detach(), task), truth).max()) < 1


def test_a_patch_that_is_too_large_is_caught(oracle):
    target, images, labels, _ = oracle
    search = Search(target, images, labels)
    wide = images.clone()
    wide[2, :, 1, 2:6] = 0.0
    tall = images.clone()
    tall[0, 0, 0, 0] += 0.01
    tall[0, 1, 4, 0] += 0.01
    attack = AdversarialPatch(coverage=9 / 64)

    attack._check_budget(search, images)
    with pytest.raises(BudgetError, match="expected a patch 3 pixels wide, got 4"):
        attack._check_budget(search, wide)
    with pytest.raises(BudgetError, match="expected a patch 3 pixels wide, got 5"):
        attack._check_budget(search, tall)


def test_stronger_than_hiding_the_same_share(few):
    target, images, labels = few
    dropped = palpate.occlusions.PatchDrop(coverage=0.05)(images)
    found = AdversarialPatch(coverage=0.05, steps=10).search(target, images, labels)

    def right(x):
        return float((target.logits(x).argmax(1) == labels).float().mean())

    assert right(found.images) < right(dropped)
    assert set(found.status) == {Status.OK}


def test_bad_settings_are_refused(oracle):
    target, images, labels, _ = oracle
    with pytest.raises(ConfigError, match=r"coverage: expected 0 to 1, got 1.5"):
        AdversarialPatch(coverage=1.5)
    with pytest.raises(ConfigError, match="restarts: expected 1 or more, got 0"):
        AdversarialPatch(restarts=0)
    with pytest.raises(ConfigError, match=r"makes a patch on images of \(8, 8\), got 0.01"):
        AdversarialPatch(coverage=0.01)(target, images, labels)
