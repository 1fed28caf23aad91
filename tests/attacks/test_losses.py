"""Every loss against its formula: monai's, a closed form on few pixels, and finite differences."""

import math

import pytest
import torch
from torch.nn import functional

from palpate.attacks._loss import Objective, dlr, margin, targeted_dlr, targeted_margin
from palpate.errors import ConfigError
from palpate.types import Classification, MultiLabel, Segmentation

PLANES = ["ce", "bce", "dice", "dice_ce", "focal", "dice_focal"]
PIXELS = ["margin", "segpgd", "cospgd", "jsd"]
HEADS = ["softmax", "sigmoid"]


def example(head, *, classes=3, side=5, batch=2, dtype=torch.float64):
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn((batch, classes, side, side), generator=draw, dtype=dtype) * 2
    shape = (batch, side, side) if head == "softmax" else logits.shape
    top = classes if head == "softmax" else 2
    return logits, torch.randint(0, top, shape, generator=draw)


def value(name, logits, masks, head, *, swap=False, progress=0.5):
    objective = Objective(name, swap)
    return objective(logits, masks, exclusive=head == "softmax", progress=progress)


def monai_loss(name, head, given, target):
    """Per sample, since monai averages over the batch."""
    import monai.losses as losses

    softmax = head == "softmax"
    options = {"softmax": True, "include_background": False} if softmax else {"sigmoid": True}
    dice = losses.DiceLoss(**options, reduction="mean")
    focal = losses.FocalLoss(use_softmax=softmax, include_background=True)
    cross = {
        "ce": (lambda g, t: functional.cross_entropy(g, t)) if softmax else binary_sum,
        "bce": functional.binary_cross_entropy_with_logits,
    }
    terms = {
        "ce": [cross["ce"]],
        "bce": [cross["bce"]],
        "dice": [dice],
        "dice_ce": [dice, cross["ce" if softmax else "bce"]],
        "focal": [focal],
        "dice_focal": [dice, focal],
    }[name]
    pairs = [(g[None], t[None]) for g, t in zip(given, target, strict=True)]
    return torch.stack([sum(term(g, t) for term in terms) for g, t in pairs])


def binary_sum(given, target):
    return functional.binary_cross_entropy_with_logits(given, target) * given.shape[1]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", PLANES)
def test_plane_losses_equal_monai_in_both_orders(name, head, swap):
    logits, masks = example(head)
    target = masks.double()
    if head == "softmax":
        target = functional.one_hot(masks, 3).movedim(-1, 1).double()

    ours = value(name, logits, masks, head, swap=swap)

    theirs = monai_loss(name, head, *((target, logits) if swap else (logits, target)))
    # monai computes its focal loss in float32
    assert torch.allclose(ours, theirs.double(), atol=1e-6 if "focal" in name else 1e-10)


def test_dice_focal_equals_monais_own_sum():
    import monai.losses

    logits, masks = example("sigmoid", batch=1)
    theirs = monai.losses.DiceFocalLoss(sigmoid=True)(logits, masks.double())

    assert torch.allclose(value("dice_focal", logits, masks, "sigmoid")[0], theirs)


SMOOTH = ("margin", "segpgd", "jsd", "masked_ce", "masked_spherical")
ORDERS = [(n, False) for n in (*PLANES, *SMOOTH)] + [(n, True) for n in PLANES]


@pytest.mark.parametrize(("name", "swap"), ORDERS)
@pytest.mark.parametrize("head", HEADS)
def test_gradients_equal_finite_differences(name, head, swap):
    logits, masks = example(head, side=3)
    logits = (logits * 0.4).requires_grad_()  # away from the margin's ceiling

    assert torch.autograd.gradcheck(
        lambda z: value(name, z, masks, head, swap=swap), (logits,), eps=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("head", HEADS)
def test_cospgd_is_cross_entropy_with_a_constant_weight(head):
    logits, masks = example(head, side=2)
    logits.requires_grad_()
    pairs = torch.stack([torch.zeros_like(logits), logits], 1) if head == "sigmoid" else logits
    share = pairs.detach().softmax(1)
    true = share.gather(1, masks.unsqueeze(1)).squeeze(1)
    cosine = true / share.pow(2).sum(1).sqrt()
    expected = cosine * functional.cross_entropy(pairs, masks, reduction="none")

    ours = value("cospgd", logits, masks, head)

    assert torch.allclose(ours, expected.flatten(1).mean(1))
    got = torch.autograd.grad(ours.sum(), logits)[0]
    assert torch.allclose(got, torch.autograd.grad(expected.flatten(1).mean(1).sum(), logits)[0])


def test_segpgd_moves_its_weight_from_right_to_wrong_pixels():
    # one right pixel with loss a, one wrong pixel with loss b
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    masks = torch.tensor([[[0, 0]]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(1))

    for progress, weight in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):
        ours = value("segpgd", logits, masks, "softmax", progress=progress)
        assert math.isclose(float(ours), ((1 - weight) * right + weight * wrong) / 2)


def test_masked_losses_see_right_pixels_alone():
    logits = torch.tensor([[[[3.0, 0.0]], [[-4.0, 1.0]]]], dtype=torch.float64)
    masks = torch.tensor([[[0, 0]]])

    assert math.isclose(
        float(value("masked_ce", logits, masks, "softmax")), math.log1p(math.exp(-7)) / 2
    )
    assert math.isclose(float(value("masked_spherical", logits, masks, "softmax")), -3 / 5 / 2)


def test_jsd_of_few_pixels():
    logits = torch.tensor([[[[0.0, 30.0]], [[math.log(3), -30.0]]]], dtype=torch.float64)
    masks = torch.tensor([[[0, 0]]])
    p, e = torch.tensor([0.25, 0.75]).double(), torch.tensor([1.0, 0.0]).double()
    middle = (p + e) / 2
    first = 0.5 * (p * (p / middle).log()).sum() + 0.5 * math.log(1 / middle[0])

    ours = value("jsd", logits, masks, "softmax")

    assert torch.allclose(ours[0], first / 2, atol=1e-9)


def test_jsd_is_finite_for_saturated_logits():
    logits = torch.tensor([[[[-1e4, 1e4]]]]).requires_grad_()
    ours = value("jsd", logits, torch.tensor([[[[1, 0]]]]), "sigmoid")

    assert math.isclose(float(ours.detach()), math.log(2), rel_tol=1e-5)
    assert bool(torch.autograd.grad(ours.sum(), logits)[0].isfinite().all())


def test_margin_of_masks_stops_at_its_ceiling():
    logits = torch.tensor([[[[0.0, 0.0, 3.0]], [[0.5, 9.0, 1.0]]]])
    ours = value("margin", logits, torch.zeros((1, 1, 3), dtype=torch.long), "softmax")

    assert math.isclose(float(ours), (0.5 + 1.0 - 2.0) / 3, rel_tol=1e-6)


def test_exchanged_bce_pushes_foreground_alone():
    """seeds.md 3.3: as the study's code calls it, the gradient is minus the mask."""
    logits, masks = example("sigmoid", classes=1)
    logits.requires_grad_()
    loss = value("bce", logits, masks, "sigmoid", swap=True)
    gradient = torch.autograd.grad(loss.sum(), logits)[0]

    assert torch.allclose(gradient, -masks.double() / 25)


def test_classification_losses_on_few_numbers():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [1.0, 2.0, 4.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])

    assert margin(logits, labels).tolist() == [-2.0, 2.0]
    assert torch.allclose(dlr(logits, labels), torch.tensor([-2 / 3, 2 / 3]).double())
    aims = torch.tensor([3, 2])
    assert targeted_margin(logits, labels, aims).tolist() == [-4.0, 2.0]
    scale = torch.tensor([3 - (0 - 1) / 2, 4 - (1 + 0) / 2]).double()
    assert torch.allclose(
        targeted_dlr(logits, labels, aims), torch.tensor([-4.0, 2.0]).double() / scale
    )


@pytest.mark.parametrize("name", ["ce", "bce", "margin", "dlr"])
def test_classification_gradients_equal_finite_differences(name):
    logits = torch.randn((3, 5), generator=torch.Generator().manual_seed(0)).double()
    logits.requires_grad_()
    labels = torch.tensor([0, 2, 4])

    assert torch.autograd.gradcheck(
        lambda z: Objective(name)(z, labels, exclusive=True), (logits,), atol=1e-7
    )


def test_multi_label_margin_counts_every_label():
    logits = torch.tensor([[0.5, -0.25]])
    ours = Objective("margin")(logits, torch.tensor([[1, 0]]), exclusive=False)

    assert torch.allclose(ours, torch.tensor([(-0.5 - 0.25) / 2]))


def test_a_loss_that_does_not_fit_is_refused_with_those_that_do():
    binary, four = Classification(("a", "b")), Classification(tuple("abcd"))
    with pytest.raises(ConfigError, match="expected one of ce, bce, segpgd, margin, .* for Class"):
        Objective("dlr").check(binary)
    Objective("dlr").check(four)
    with pytest.raises(ConfigError, match="got 'dice'"):
        Objective("dice").check(MultiLabel(("a", "b")))
    with pytest.raises(ConfigError, match="got 'dlr'"):
        Objective("dlr").check(Segmentation(tuple("abcd")))
    with pytest.raises(ConfigError, match="expected masks, got Classification"):
        Objective("ce", swap_arguments=True).check(binary)
    with pytest.raises(ConfigError, match="swap_arguments: expected a loss of"):
        Objective("cospgd", swap_arguments=True)
