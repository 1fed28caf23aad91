import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from palpate import registry
from palpate.attacks._contrast import Contrasts, common_plane, onto_plane
from palpate.attacks._projection import size
from palpate.attacks.deepfool import Deepfool
from palpate.contracts.oracles import batch, linear, probe
from palpate.errors import CapabilityError, ConfigError
from palpate.targets.base import Target
from palpate.types import Bounds, MultiLabel


def closest(images, gap, slope, norm):
    """Norm of the least change onto the plane inside the box, by a general solver."""
    x, w = images.flatten().double().numpy(), slope.flatten().double().numpy()
    if norm == "linf":  # variables δ and t; minimise t with -t <= δ_i <= t
        n = len(x)
        cost = [0.0] * n + [1.0]
        rows = [[(j == i) * s for j in range(n)] + [-1.0] for i in range(n) for s in (1.0, -1.0)]
        box = [(-v, 1 - v) for v in x] + [(0, None)]
        answer = linprog(cost, rows, [0.0] * (2 * n), [[*w, 0.0]], [-float(gap)], bounds=box)
        return answer.fun
    answer = minimize(
        lambda d: (d**2).sum(),
        x * 0,
        jac=lambda d: 2 * d,
        bounds=[(-v, 1 - v) for v in x],
        constraints={"type": "eq", "fun": lambda d: w @ d + float(gap), "jac": lambda d: w},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return answer.fun**0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_on_a_plane_in_the_box_is_the_nearest(norm):
    draw = torch.Generator().manual_seed(2)
    images = torch.rand((6, 1, 3, 3), generator=draw).double()
    slope = torch.randn((6, 1, 3, 3), generator=draw).double()
    gap = torch.tensor([-0.1, -0.5, -1.0, 0.7, 0.2, -1.5]).double()

    step = onto_plane(images, gap, slope, norm=norm, bounds=Bounds())

    assert torch.allclose((slope * step).flatten(1).sum(1), -gap)
    inside = images + step
    assert -1e-9 < float(inside.min()) <= float(inside.max()) < 1 + 1e-9
    for i in range(6):
        best = closest(images[i], gap[i], slope[i], norm)
        assert float(size(step, norm)[i]) == pytest.approx(best, rel=1e-4)


def test_a_plane_out_of_reach_gives_the_corner():
    images, slope = torch.full((1, 1, 2, 2), 0.5), torch.ones((1, 1, 2, 2))
    step = onto_plane(images, torch.tensor([-9.0]), slope, norm="l2", bounds=Bounds())

    assert torch.allclose(step, torch.full_like(step, 0.5))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    labels = logits.argmax(1)
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()

    found = Deepfool(norm=norm)(target, given.images, labels)

    least = logits[:, 1].abs() / dual
    assert torch.allclose(size(found - given.images, norm), 1.02 * least, rtol=2e-3, atol=1e-4)


def test_no_farther_than_torchattacks_and_foolbox(few):
    import foolbox
    import torchattacks

    target, images, labels = few
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    ours = size(Deepfool(norm="l2")(target, images, labels) - images, "l2").median()

    peer = torchattacks.DeepFool(few.network, steps=50, overshoot=0.02)
    assert ours <= 1.02 * size(peer(images, labels) - images, "l2").median()
    model = foolbox.PyTorchModel(few.network, bounds=(0, 1), device="cpu")
    for norm, attack in (
        ("l2", foolbox.attacks.L2DeepFoolAttack),
        ("linf", foolbox.attacks.LinfDeepFoolAttack),
    ):
        theirs = attack(loss="logits")(model, images, labels, epsilons=None)[1]
        ours = size(Deepfool(norm=norm)(target, images, labels) - images, norm).median()
        assert ours <= 1.05 * size(theirs - images, norm).median()


def test_an_optional_budget_cuts_what_lies_farther():
    target, given = linear(), batch(8, classes=2, margin=0.2)
    labels = target.logits(given.images).argmax(1)
    free = size(Deepfool(norm="l2")(target, given.images, labels) - given.images, "l2")
    limit = float(free.median())

    cut = Deepfool(norm="l2", epsilon=limit)(target, given.images, labels)

    spent = size(cut - given.images, "l2")
    assert torch.allclose(spent, free.clamp(max=limit), atol=1e-5)
    assert torch.equal(target.logits(cut).argmax(1) == labels, free > limit * (1 + 1e-6))


def test_what_is_wrong_already_stays():
    target, given = probe(), batch(6)
    wrong = target.logits(given.images).argmax(1) != given.references

    found = Deepfool()(target, given.images, given.references)

    assert 0 < int(wrong.sum()) < 6
    assert torch.equal((found == given.images).flatten(1).all(1), wrong)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("criterion", "bar", "count"),
    [("pixel_success", 0.01, 1), ("dice_below", 0.5, 3), ("pixel_success", 1.0, 4)],
)
def test_closed_form_on_several_labels(labelled, norm, criterion, bar, count):
    """One wrong label, fewer than half right, none right; the nearest planes are crossed."""
    target, images, labels = labelled
    found = Deepfool(norm=norm, criterion=criterion, bar=bar)(target, images, labels)

    assert bool((labelled.wrong(found) >= count / 4).all())
    ratio = size(found - images, norm) / labelled.least(norm, count)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.04


@pytest.mark.parametrize(("alike", "most"), [(0.0, 1.12), (0.7, 1.12), (-0.9, 1.25)])
def test_planes_that_lean_on_each_other_are_crossed_together(alike, most):
    """All of five labels, whose slopes are independent, alike or against each other."""
    draw = torch.Generator().manual_seed(4)
    slopes = torch.randn((1, 5, 1, 5, 6), generator=draw)
    slopes = slopes + alike * (slopes.mean(dim=1, keepdim=True) * (1 if alike < 0 else 5))
    gaps = -0.5 - torch.rand((1, 5), generator=draw)
    images = torch.full((1, 1, 5, 6), 0.5)
    wide = Bounds(-100.0, 100.0)

    found = {}
    for norm in ("l2", "linf"):
        moved = torch.zeros_like(images)
        for _ in range(12):  # as the attack goes on: from where the last step led
            left = gaps + (slopes * moved.unsqueeze(1)).flatten(2).sum(2)
            if bool((left >= -1e-5).all()):
                break
            every = Contrasts(left, left - 1e-4, slopes)
            gap, slope = common_plane(every, torch.ones_like(left, dtype=torch.bool))
            moved = moved + onto_plane(images + moved, gap, slope, norm=norm, bounds=wide)
        assert bool((left >= -1e-5).all())
        found[norm] = float(size(moved, norm))

    flat, needed = slopes[0].flatten(1).double().numpy(), -gaps[0].double().numpy()
    pixels = flat.shape[1]
    rows = [*np.hstack([np.eye(pixels), -np.ones((pixels, 1))])]
    rows += [*np.hstack([-np.eye(pixels), -np.ones((pixels, 1))])]
    rows += [*np.hstack([-flat, np.zeros((5, 1))])]
    limits = [*np.zeros(2 * pixels), *(-needed)]
    box = [(None, None)] * pixels + [(0, None)]
    linf = linprog([0.0] * pixels + [1.0], rows, limits, bounds=box).fun
    dual = minimize(
        lambda m: 0.5 * m @ flat @ flat.T @ m - needed @ m,
        np.ones(5),
        jac=lambda m: flat @ flat.T @ m - needed,
        bounds=[(0, None)] * 5,
        options={"ftol": 1e-14},
    )
    l2 = np.linalg.norm(dual.x @ flat)
    assert l2 * (1 - 1e-4) <= found["l2"] < 1.02 * l2
    assert linf * (1 - 1e-4) <= found["linf"] < most * linf


def test_labels_that_cannot_all_turn_leave_what_could():
    """Twice the same slope, and answers of which only one can be wrong."""
    weight = torch.randn((1, 16), generator=torch.Generator().manual_seed(6))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.cat([weight, weight]))
        module[1].bias.copy_(torch.tensor([0.05, -0.05]) - 0.5 * weight.sum())
    target = Target(module, MultiLabel(("a", "b")))
    images, labels = torch.full((1, 1, 4, 4), 0.5), torch.tensor([[1, 0]])
    one = Deepfool(norm="l2", criterion="pixel_success", bar=0.5)(target, images, labels)
    both = Deepfool(norm="l2", steps=8, criterion="pixel_success", bar=1.0)(target, images, labels)

    for found in (one, both):
        assert float(((target.logits(found) > 0).long() != labels).float().mean()) == 0.5
    assert float(size(one - images, "l2")) == pytest.approx(0.051 / float(weight.norm()), rel=0.01)


def test_masks_and_bad_settings_are_refused(thresholds):
    expected = (
        "deepfool: expected a task of Classification or MultiLabel, got Segmentation; minimal"
        " attacks on it: "
    )
    with pytest.raises(CapabilityError, match=f"^{expected}") as raised:
        Deepfool().check(thresholds.target)
    offered, budgeted = str(raised.value).removeprefix(expected).split("; within a fixed budget: ")
    names = offered.split(", ")
    assert {"alma_prox", "carlini_wagner", "minimal_epsilon"} <= set(names)
    for name in (*names, budgeted):
        registry.create("attacks", name).check(thresholds.target)
    with pytest.raises(ConfigError, match="epsilon: expected 0 or more, got -1"):
        Deepfool(epsilon=-1.0)
    with pytest.raises(ConfigError, match="candidates of 1 or more"):
        Deepfool(candidates=0)
