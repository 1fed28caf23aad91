import pytest
import torch
from scipy.optimize import linprog, minimize

from palpate.attacks._contrast import onto_plane
from palpate.attacks._projection import size
from palpate.attacks.deepfool import Deepfool
from palpate.contracts.oracles import batch, linear, probe
from palpate.errors import CapabilityError, ConfigError
from palpate.types import Bounds


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


def test_masks_and_bad_settings_are_refused(thresholds):
    with pytest.raises(CapabilityError, match="deepfool: expected a task of Classification"):
        Deepfool().check(thresholds.target)
    with pytest.raises(ConfigError, match="epsilon: expected 0 or more, got -1"):
        Deepfool(epsilon=-1.0)
    with pytest.raises(ConfigError, match="candidates of 1 or more"):
        Deepfool(candidates=0)
