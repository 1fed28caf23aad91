import numpy as np
import pytest
import torch

from palpate.attacks.fgsm import Fgsm
from palpate.contracts.oracles import batch, linear


@pytest.mark.parametrize("epsilon", [1 / 255, 8 / 255])
def test_equals_torchattacks_and_foolbox_exactly(trained, epsilon):
    import foolbox
    import torchattacks

    target, images, labels = trained
    ours = Fgsm(epsilon=epsilon)(target, images, labels)

    network = trained.network
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
