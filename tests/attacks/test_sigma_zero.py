import math

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.attacks._projection import project, size
from palpate.attacks.pgd import Pgd
from palpate.attacks.sigma_zero import SigmaZero
from palpate.contracts.oracles import batch, constant, fewest, linear
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Bounds, Classification, Prediction


def right(target, images, labels):
    return scores(Prediction(target.logits(images).detach(), target.task), labels)


def test_closed_form_on_a_linear_model():
    """The values with the largest weight times room are changed first, to the bound."""
    target, given = linear(), batch(16)
    logits = target.logits(given.images).detach()
    labels = logits.argmax(1)
    weight = target.module.get_parameter("weight").detach()
    least = fewest(given.images, weight, logits[:, 1] - logits[:, 0])

    found = SigmaZero(steps=300)(target, given.images, labels)

    assert bool((right(target, found, labels) == 0).all())
    spent = size(found - given.images, "l0")
    assert bool((spent >= least).all())
    assert bool((spent <= least + 1).all())
    assert float((spent == least).float().mean()) >= 0.75


def test_closed_form_in_another_range():
    """The range is that of CT; eight equal weights, each value worth the same."""
    low, high = -1000.0, 400.0
    module = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[0.0], [1 / 1400]]).expand(2, 8))
        module[1].bias.copy_(torch.tensor([0.0, 4.75]))
    target = Target(module, Classification(("a", "b")), Bounds(low, high))
    images = torch.full((1, 1, 2, 4), -300.0)  # logit 4.75 - 8 · 300 / 1400 = 3.04; 0.5 each

    found = SigmaZero(steps=60)(target, images, torch.tensor([1]))

    assert float(size(found - images, "l0")) == math.ceil(3.04 / 0.5)
    assert low <= float(found.min()) <= float(found.max()) <= high


def l0_greedy(target, images, labels, most):
    """Push the one value whose gradient times room is largest to its bound, again and again."""
    found, used = images.clone(), torch.zeros_like(images).flatten(1)
    count = torch.full((len(images),), math.inf)
    rows = torch.arange(len(images))
    for changed in range(most):
        wrong = right(target, found, labels) == 0
        count[wrong & count.isinf()] = changed
        points = found.clone().requires_grad_()
        loss = nn.functional.cross_entropy(target.logits(points), labels, reduction="sum")
        slope = torch.autograd.grad(loss, points)[0]
        gain = (slope.abs() * torch.where(slope > 0, 1 - images, images)).flatten(1) - used
        chosen = gain.argmax(1)
        used[rows, chosen] = math.inf
        found.flatten(1)[rows, chosen] = (slope.flatten(1)[rows, chosen] > 0).float()
    return count


def test_stronger_than_the_greedy_choice_on_a_deep_network(few):
    target, images, labels = few
    stood = right(target, images, labels) == 1
    images, labels = images[stood][4:10], labels[stood][4:10]

    found = SigmaZero(steps=60)(target, images, labels)

    assert bool((right(target, found, labels) == 0).all())
    spent = size(found - images, "l0")
    with target.frozen():
        greedy = l0_greedy(target, images, labels, 30)
    assert float(spent.mean()) < 0.8 * float(greedy.clamp(max=30).mean())


def test_stronger_than_l1_cut_to_the_same_number_of_values(cheap):
    """No value moves by more than 1, so the L1 ball of that size holds all that L0 may change."""
    target, images, labels = cheap
    stood = right(target, images, labels) == 1
    images, labels = images[stood], labels[stood]
    spent = size(SigmaZero(steps=100)(target, images, labels) - images, "l0")

    for budget in (2.0, 4.0, 8.0):
        dense = Pgd(norm="l1", epsilon=budget, steps=20, loss="margin")(target, images, labels)
        sparse = project(dense, images, norm="l0", epsilon=budget, bounds=target.bounds)
        left = right(target, sparse, labels)
        assert float((spent > budget).float().mean()) < float(left.mean())


def test_a_budget_is_a_number_of_values(cheap):
    target, images, labels = cheap
    images, labels = images[:20], labels[:20]
    free = SigmaZero(steps=60)(target, images, labels)
    spent = size(free - images, "l0")
    most = float(spent.median())

    held = SigmaZero(steps=60, epsilon=most)(target, images, labels)

    near = spent <= most
    assert torch.equal(held[near], free[near])
    assert bool((size(held - images, "l0")[~near] == most).all())
    assert bool((right(target, held, labels) == 0).equal(near))
    assert 0 <= float(held.min()) <= float(held.max()) <= 1


def test_nearest_point_with_few_changes_is_that_of_a_full_search():
    draw = torch.Generator().manual_seed(4)
    clean = torch.rand((1, 1, 2, 3), generator=draw)
    point = clean + torch.randn((1, 1, 2, 3), generator=draw)
    found = project(point, clean, norm="l0", epsilon=2.9, bounds=Bounds())

    legal = point.clamp(0, 1)
    sums = []
    for kept in torch.combinations(torch.arange(6), 2):
        other = clean.clone()
        other.flatten(1)[0, kept] = legal.flatten(1)[0, kept]
        sums.append(float((other - legal).square().sum()))
    assert float((found - legal).square().sum()) == pytest.approx(min(sums))
    counts = torch.tensor([0.0, 1.0, 6.0]).reshape(3, 1, 1, 1)
    each = project(
        point.repeat(3, 1, 1, 1),
        clean.repeat(3, 1, 1, 1),
        norm="l0",
        epsilon=counts,
        bounds=Bounds(),
    )
    assert size(each - clean, "l0").tolist() == [0, 1, 6]


@pytest.mark.parametrize(("criterion", "bar"), [("pixel_success", 0.1), ("dice_below", 0.6)])
def test_closed_form_on_masks(thresholds, criterion, bar):
    """Each pixel is one value, and a lesion's pixel that is lost costs Dice most."""
    target, images, masks = thresholds
    found = SigmaZero(criterion=criterion, bar=bar, steps=100)(target, images, masks)

    spent = size(found - images, "l0")
    if criterion == "pixel_success":
        least = torch.full((3,), math.ceil(bar * masks[0].numel()))
    else:
        lesion = masks.flatten(1).sum(1)
        # 2 (n − k) / (2 n − k) < bar
        least = torch.floor(2 * lesion * (1 - bar) / (2 - bar)) + 1
    assert bool((spent >= least).all())
    assert bool((spent <= 1.35 * least).all())


@pytest.mark.parametrize(("bar", "count"), [(0.01, 1), (0.75, 3)])
def test_several_labels(labelled, bar, count):
    target, images, labels = labelled
    found = SigmaZero(criterion="pixel_success", bar=bar, steps=200)(target, images, labels)

    assert bool((labelled.wrong(found) >= count / 4).all())
    weight = target.module[1].weight.detach()
    gaps = target.logits(images).detach()
    alone = [fewest(images, weight[k].reshape(1, 8, 8), gaps[:, k]) for k in range(4)]
    least = torch.stack(alone, dim=1).sort(dim=1).values[:, :count].sum(1)
    spent = size(found - images, "l0")
    assert bool((spent >= least).all())
    assert bool((spent <= least + count).all())


def test_a_target_that_never_answers_differently_is_not_robust():
    found = SigmaZero(steps=5).search(constant(), batch(3).images, torch.tensor([1, 1, 1]))
    assert set(found.status) == {Status.NO_GRADIENT}


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="expected a whole number of values, got 0.0313725"):
        registry.create("attacks", "sigma_zero", {"epsilon": "8/255"})
    with pytest.raises(ConfigError, match=r"threshold: expected a share in \[0, 1\], got 2"):
        SigmaZero(threshold=2.0)
