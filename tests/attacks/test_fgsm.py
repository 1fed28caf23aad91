import dataclasses

import numpy as np
import pytest
import torch

from palpate.attacks.fgsm import Fgsm
from palpate.contracts.oracles import batch, linear
from palpate.types import Bounds


@pytest.mark.parametrize("epsilon", [1 / 255, 8 / 255])
def test_equals_torchattacks_and_foolbox_exactly(few, epsilon):
    import foolbox
    import torchattacks

    target, images, labels = few
    ours = Fgsm(epsilon=epsilon)(target, images, labels)

    network = few.network
    assert torch.equal(ours, torchattacks.FGSM(network, eps=epsilon)(images, labels))
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, theirs, _ = foolbox.attacks.LinfFastGradientAttack(random_start=False)(
        model, images, labels, epsilons=epsilon
    )
    assert torch.equal(ours, theirs)


def test_closed_form_on_a_linear_model():
    target, given = linear(), batch(4, classes=2, margin=0.2)
    weight = target.module.get_parameter("weight").detach().numpy()
    signs = np.where(given.references.numpy() == 1, -1, 1).reshape(-1, 1, 1, 1)

    found = Fgsm(epsilon=0.1)(target, given.images, given.references)

    expected = given.images.numpy() + 0.1 * signs * np.sign(weight)
    assert np.allclose(found.numpy(), expected, atol=1e-7)


def test_l2_step_has_the_length_of_the_budget():
    target, given = linear(), batch(4, classes=2, margin=0.4)

    moved = Fgsm(epsilon=0.3, norm="l2")(target, given.images, given.references) - given.images

    assert torch.allclose(moved.flatten(1).norm(dim=1), torch.full((4,), 0.3), atol=1e-5)


def test_blend_is_what_the_study_codes():
    """(1 - eps) x + eps sign(g), clipped: dims the image and overspends on bright pixels."""
    target, given = linear(), batch(4, classes=2)
    attack = Fgsm(epsilon=0.03, update="blend")

    found = attack(target, given.images, given.references)

    signs = Fgsm(epsilon=1e-3)(target, given.images, given.references) - given.images
    expected = (0.97 * given.images + 0.03 * signs.sign()).clamp(0, 1)
    inside = (given.images > 0.01) & (given.images < 0.99)  # else the probe step was clipped
    assert torch.allclose(found[inside], expected[inside], atol=1e-6)
    spent = float((found - given.images).abs().max())
    assert 0.03 < spent <= 0.06
    assert attack.budget == 0.06


def test_blend_on_another_range_is_the_same_picture():
    given = batch(4, classes=2)
    unit = linear()
    wide = dataclasses.replace(unit, bounds=Bounds(-100.0, 300.0), mean=(-100.0,), std=(400.0,))

    small = Fgsm(epsilon=0.02, update="blend")(unit, given.images, given.references)
    large = Fgsm(epsilon=8.0, update="blend")(wide, given.images * 400 - 100, given.references)

    assert torch.allclose(large, small * 400 - 100, atol=1e-3)


def test_exchanged_arguments_change_the_attack(thresholds):
    """seeds.md 3.3: with Dice, as coded, foreground goes up and background down: it helps."""
    target, images, masks = thresholds
    right = Fgsm(epsilon=0.1, loss="dice")(target, images, masks) - images
    wrong = Fgsm(epsilon=0.1, loss="dice", swap_arguments=True)(target, images, masks) - images

    foreground = masks.bool().unsqueeze(1)
    assert float(right[foreground].mean()) < -0.05
    assert float(wrong[foreground].mean()) > 0.05


def test_the_label_may_be_what_the_target_decides():
    target, given = linear(), batch(8, classes=2, margin=0.2)
    decided = target.logits(given.images).argmax(1)
    one = Fgsm(epsilon=0.01, label="prediction")(target, given.images, given.references)
    other = Fgsm(epsilon=0.01)(target, given.images, decided)

    assert not torch.equal(decided, given.references)
    assert torch.equal(one, other)
