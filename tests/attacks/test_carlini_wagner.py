import math

import pytest
import torch
from torch import nn

from palpate.attacks._contrast import onto_plane
from palpate.attacks._gradient import Search
from palpate.attacks._projection import size
from palpate.attacks._success import Success
from palpate.attacks.carlini_wagner import CarliniWagner, _Excess
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.contracts.oracles import Linear, batch, linear
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Bounds, Classification, MultiLabel, Prediction, Segmentation


def score(target, images, references, prompts=None):
    logits = target.logits(images, target.tokens(prompts)).detach()
    return scores(Prediction(logits, target.task), references)


def test_near_the_closed_form_on_a_linear_model():
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()

    found = CarliniWagner(steps=100, searches=6)(target, given.images, logits.argmax(1))

    ratio = size(found - given.images, "l2") / (logits[:, 1].abs() / weight.norm())
    assert 1 <= float(ratio.min()) <= float(ratio.max()) < 1.01


def test_pixels_at_a_bound_take_part():
    """Half of the pixels are black: the way to the plane inside the box leads through them."""
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn((1, 1, 8, 8), generator=draw)
    images = torch.rand((4, 1, 8, 8), generator=draw) * (torch.rand((8, 8), generator=draw) > 0.5)
    target = Target(Linear(weight, -8.0).eval(), Classification(("a", "b")))
    logit = target.logits(images).detach()[:, 1]

    found = CarliniWagner(steps=100, searches=8)(target, images, (logit > 0).long())

    least = size(
        onto_plane(images, logit, weight.expand(4, -1, -1, -1), norm="l2", bounds=Bounds()), "l2"
    )
    ratio = size(found - images, "l2") / least
    assert float(logit.max()) < 0
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


def test_no_farther_than_foolbox(few):
    import foolbox

    target, images, labels = few
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right][:6], labels[right][:6]
    options = {"steps": 25, "first_weight": 0.1, "searches": 3}
    found = CarliniWagner(**options)(target, images, labels)

    model = foolbox.PyTorchModel(few.network, bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.L2CarliniWagnerAttack(
        steps=25, binary_search_steps=3, initial_const=0.1, stepsize=0.01
    )
    theirs = peer(model, images, labels, epsilons=None)[1]
    assert int((target.logits(found).argmax(1) == labels).sum()) == 0
    assert size(found - images, "l2").median() <= 1.05 * size(theirs - images, "l2").median()


@pytest.mark.parametrize(
    ("criterion", "bar", "count"),
    [("pixel_success", 0.01, 1), ("dice_below", 0.5, 3), ("pixel_success", 1.0, 4)],
)
def test_closed_form_on_several_labels(labelled, criterion, bar, count):
    """One wrong label, fewer than half right, none right; the nearest planes first."""
    target, images, labels = labelled
    attack = CarliniWagner(steps=60, searches=7, criterion=criterion, bar=bar)
    found = attack(target, images, labels)

    ratio = size(found - images, "l2") / labelled.least("l2", count)
    assert bool((labelled.wrong(found) >= count / 4).all())
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.08


@pytest.fixture(scope="module")
def corner(thresholds):
    """Two corners of the thresholds' images, since each step is dear with checked types."""
    target, images, masks = thresholds
    return target, images[:2, :, :8, :8], masks[:2, :8, :8]


@pytest.mark.parametrize("share", [0.9, 0.2])
def test_closed_form_of_wrong_pixels_on_a_pixel_threshold(corner, share):
    """The nearest pixels turn and no other moves."""
    target, images, masks = corner
    attack = CarliniWagner(steps=60, searches=6, criterion="pixel_success", bar=share)
    found = attack(target, images, masks)

    count = math.ceil(share * masks[0].numel())
    least = (images - 0.5).abs().flatten(1).sort(dim=1).values[:, :count].norm(dim=1)
    ratio = size(found - images, "l2") / least
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.08
    assert (found != images).flatten(1).sum(1).tolist() == [count, count]


@pytest.mark.parametrize("bar", [0.5, 0.8])
def test_closed_form_of_dice_below_a_bar_on_a_pixel_threshold(corner, bar):
    """Dice < β when Σ v > 2 R (1 − β), v = 2 − β for a missed and β for an added pixel."""
    target, images, masks = corner
    found = CarliniWagner(steps=100, searches=7, bar=bar)(target, images, masks)

    assert bool((score(target, found, masks) < bar).all())
    spent = size(found - images, "l2")
    for i, mask in enumerate(masks.flatten(1)):
        worth = torch.where(mask > 0, 2 - bar, bar)
        cost = (images[i, 0].flatten() - 0.5) ** 2
        order = (cost / worth).argsort()
        enough = int((worth[order].cumsum(0) <= 2 * mask.sum() * (1 - bar)).sum())
        # up to the last pixel the best set of all, so its norm bounds the least from both sides
        low, high = (float(cost[order][: enough + more].sum().sqrt()) for more in (0, 1))
        assert low * (1 - 1e-4) <= float(spent[i]) < 1.08 * high


def test_closed_form_on_planes_that_overlap():
    """Each plane is a threshold of a channel of its own."""
    module = nn.Conv2d(3, 3, kernel_size=1).eval()
    with torch.no_grad():
        module.weight.copy_(10 * torch.eye(3).reshape(3, 3, 1, 1))
        module.bias.fill_(-5.0)
    target = Target(module, Segmentation(("a", "b", "c"), exclusive=False))
    images = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    attack = CarliniWagner(steps=60, searches=6, criterion="pixel_success", bar=0.5)

    found = attack(target, images, (images > 0.5).long())

    least = (images - 0.5).abs().flatten(1).sort(dim=1).values[:, :96].norm(dim=1)
    ratio = size(found - images, "l2") / least
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.08


def test_nearer_than_bisection_over_pgd_on_a_network(network):
    target, images, masks = network[0], network[1][:3], network[2][:3]
    found = CarliniWagner(steps=50, searches=5)(target, images, masks)
    other = MinimalEpsilon(norm="l2", loss="dice")(target, images, masks)

    assert bool((score(target, found, masks) < 0.5).all())
    ours, theirs = (size(x - images, "l2") for x in (found, other))
    assert float((ours / theirs).median()) < 0.9


def test_prompted_masks():
    target, given = prompted(), with_questions(batch(3))
    known = score(target, given.images, given.references, given.prompts)
    attack = CarliniWagner(steps=30, searches=4, bar=0.4)
    found = attack(target, given.images, given.references, prompts=given.prompts)

    assert bool((known >= 0.4).any())
    assert bool((score(target, found, given.references, given.prompts) < 0.4).all())
    still = (found == given.images).flatten(1).all(1)
    assert torch.equal(still, known < 0.4)


def test_a_change_of_units_changes_nothing(thresholds):
    target, images, masks = thresholds
    wide = Target(
        target.module, target.task, Bounds(-1000.0, 400.0), mean=(-1000.0,), std=(1400.0,)
    )
    attack = CarliniWagner(steps=15, searches=3)
    found, other = attack(target, images, masks), attack(wide, 1400 * images - 1000, masks)

    assert torch.allclose((other + 1000) / 1400, found, atol=1e-3)


@pytest.mark.parametrize(
    ("task", "shape", "references"),
    [
        (Classification(("a", "b", "c")), (2, 3), torch.tensor([0, 2])),
        (MultiLabel(("a", "b", "c", "d")), (2, 4), torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])),
        (Segmentation(("a", "b", "c")), (2, 3, 4, 5), None),
        (Segmentation(("a", "b"), exclusive=False), (2, 2, 4, 5), None),
    ],
)
def test_the_penalty_has_the_slope_that_finite_differences_find(task, shape, references):
    draw = torch.Generator().manual_seed(8)
    size_of = math.prod(shape[1:])
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(30, size_of), nn.Unflatten(1, shape[1:])
    ).double()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    target = Target(module.eval(), task)
    images = torch.rand((2, 1, 5, 6), generator=draw).double()
    if references is None:
        of = (2, 4, 5) if task.exclusive else shape
        references = torch.randint(0, 3 if task.exclusive else 2, of, generator=draw)
    excess = _Excess(Search(target, images, references, nearest="l2"), Success("dice_below", 0.4))

    points = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(excess(target.logits(points)).sum(), points)

    assert float(slope.abs().max()) > 0
    step = 1e-6
    for at in ((0, 0, 1, 2), (1, 0, 4, 5), (1, 0, 0, 3)):
        away = torch.zeros_like(images)
        away[at] = step
        up, down = (excess(target.logits(images + s * away)).sum().detach() for s in (1, -1))
        assert float(slope[at]) == pytest.approx(float((up - down) / (2 * step)), abs=1e-5)


def test_has_one_norm_and_refuses_bad_settings():
    with pytest.raises(ConfigError, match="searches of 1 or more"):
        CarliniWagner(searches=0)
    with pytest.raises(ConfigError, match="expected a Dice above 0, at most 1, got 0"):
        CarliniWagner(bar=0.0)
    assert torch.tensor(CarliniWagner().passes) > 0
