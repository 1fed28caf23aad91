import sys

import numpy as np
import pytest
import torch
from torch import nn

from palpate.attacks._projection import size
from palpate.attacks.art import Art
from palpate.attacks.pgd import Pgd
from palpate.attacks.simba import Simba
from palpate.errors import CapabilityError, ConfigError, UnknownComponent


def classifier(network):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 28, 28),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equals_the_library_called_directly(cheap, norm):
    from art.attacks.evasion import ProjectedGradientDescent

    target, images, labels = cheap
    epsilon = {"linf": 4 / 255, "l2": 0.5}[norm]
    arguments = {"max_iter": 5, "eps_step": epsilon / 3}
    name = "ProjectedGradientDescent"
    attack = Art(norm=norm, epsilon=epsilon, attack=name, arguments=arguments, together=True)
    order = {"linf": np.inf, "l2": 2}[norm]
    peer = ProjectedGradientDescent(
        classifier(cheap.network), norm=order, eps=epsilon, verbose=False, **arguments
    )

    theirs = peer.generate(x=images.numpy(), y=labels.numpy())
    assert torch.equal(attack(target, images, labels), torch.from_numpy(theirs))


def test_equals_our_pgd(cheap):
    target, images, labels = cheap
    arguments = {"max_iter": 5, "eps_step": 1 / 255}
    name = "ProjectedGradientDescent"
    theirs = Art(epsilon=3 / 255, attack=name, arguments=arguments, together=True)
    ours = Pgd(epsilon=3 / 255, steps=5, step_size=1 / 255, random_start=False)

    found = ours.search(target, images, labels).last
    assert torch.allclose(theirs(target, images, labels), found, atol=1e-6)


def test_our_simba_is_no_weaker(cheap):
    """Share broken within the same L2 distance and the same queries: one step costs two at most."""
    target, images, labels = cheap
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right][:20], labels[right][:20]
    budget = 1.0
    arguments = {"attack": "px", "order": "random", "max_iter": 60, "epsilon": 0.2}
    theirs = Art(
        norm="l2", epsilon=None, attack="SimBA", arguments=arguments, outputs="probabilities"
    )
    ours = Simba(norm="l2", epsilon=budget, queries=120, step_size=0.2)

    def broken(found):
        wrong = target.logits(found).argmax(1) != labels
        return (wrong & (size(found - images, "l2") <= budget + 1e-6)).float().mean()

    peers = broken(theirs(target, images, labels))
    assert broken(ours(target, images, labels)) >= max(peers, 0.1)


def test_attacks_without_a_budget_are_cut_to_ours(cheap):
    target, images, labels = cheap
    spec = {"norm": "l2", "attack": "DeepFool", "arguments": {"max_iter": 5, "nb_grads": 2}}
    free = Art(epsilon=None, **spec)(target, images[:8], labels[:8]) - images[:8]
    held = Art(epsilon=0.1, **spec)(target, images[:8], labels[:8]) - images[:8]

    assert float(size(free, "l2").max()) > 0.2
    assert float(size(held, "l2").max()) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("setting", "kind", "message"),
    [
        ({"attack": "DeepFoll"}, UnknownComponent, "art has no attack 'DeepFoll'; did you mean 'D"),
        ({"arguments": {"eps": 1}}, ConfigError, "expected none of eps, which epsilon and norm"),
        ({"arguments": {"minimum": 1}}, ConfigError, "art: FastGradientMethod: .*'minimum'"),
        ({"epsilon": None}, ConfigError, "epsilon: expected a number for FastGradientMethod"),
    ],
)
def test_bad_settings_are_refused_at_planning(cheap, setting, kind, message):
    with pytest.raises(kind, match=message):
        Art(**setting).check(cheap.target)


def test_masks_and_a_missing_library_are_refused(thresholds, cheap, monkeypatch):
    with pytest.raises(CapabilityError, match="art: expected a task of Classification"):
        Art().check(thresholds.target)
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(ConfigError, match=r"art attacks need .*pip install 'palpate\[peers\]'"):
        Art().check(cheap.target)
