import pytest
import torch

from palpate.attacks._projection import size
from palpate.attacks.carlini_wagner import CarliniWagner
from palpate.contracts.oracles import batch, linear
from palpate.errors import ConfigError


def test_near_the_closed_form_on_a_linear_model():
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()

    found = CarliniWagner(steps=100, searches=6)(target, given.images, logits.argmax(1))

    ratio = size(found - given.images, "l2") / (logits[:, 1].abs() / weight.norm())
    assert 1 <= float(ratio.min()) <= float(ratio.max()) < 1.1


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


def test_has_one_norm_and_refuses_bad_settings():
    with pytest.raises(ConfigError, match="searches of 1 or more"):
        CarliniWagner(searches=0)
    assert torch.tensor(CarliniWagner().passes) > 0
