import sys

import pytest
import torch

from palpate.attacks._projection import size
from palpate.attacks.pgd import Pgd
from palpate.attacks.torchattacks import Torchattacks
from palpate.errors import CapabilityError, ConfigError, UnknownComponent


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equals_the_library_called_directly(cheap, norm):
    import torchattacks

    target, images, labels = cheap
    epsilon = {"linf": 4 / 255, "l2": 0.5}[norm]
    arguments = {"steps": 5, "alpha": epsilon / 3, "random_start": False}
    attack = Torchattacks(
        norm=norm, epsilon=epsilon, attack="PGD", arguments=arguments, together=True
    )
    name = {"linf": "PGD", "l2": "PGDL2"}[norm]
    peer = getattr(torchattacks, name)(cheap.network, eps=epsilon, **arguments)

    assert torch.equal(attack(target, images, labels), peer(images, labels))


def test_equals_our_pgd(cheap):
    target, images, labels = cheap
    arguments = {"steps": 5, "alpha": 1 / 255, "random_start": False}
    theirs = Torchattacks(epsilon=3 / 255, attack="PGD", arguments=arguments, together=True)
    ours = Pgd(epsilon=3 / 255, steps=5, step_size=1 / 255, random_start=False)

    found = ours.search(target, images, labels).last
    assert torch.allclose(theirs(target, images, labels), found, atol=1e-6)


def test_the_number_of_classes_is_the_targets(cheap):
    """FAB and the ensemble assume ten, and crash with two."""
    target, images, labels = cheap
    attack = Torchattacks(attack="FAB", epsilon=0.1, arguments={"steps": 3})
    moved = attack(target, images[:3], labels[:3]) - images[:3]

    assert 0 < float(moved.abs().max()) <= 0.1 + 1e-6


def test_attacks_without_a_budget_are_cut_to_ours(cheap):
    target, images, labels = cheap
    spec = {"norm": "l2", "attack": "CW", "arguments": {"steps": 5, "lr": 0.1}}
    free = Torchattacks(epsilon=None, **spec)(target, images, labels) - images
    held = Torchattacks(epsilon=0.1, **spec)(target, images, labels) - images

    assert float(size(free, "l2").max()) > 0.2
    assert float(size(held, "l2").max()) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("setting", "kind", "message"),
    [
        ({"attack": "PDG"}, UnknownComponent, "torchattacks has no attack 'PDG'; did you mean 'P"),
        ({"attack": "MultiAttack"}, UnknownComponent, "no attack 'MultiAttack'"),
        ({"attack": "PGDL2"}, ConfigError, "norm: expected l2 for PGDL2, got linf"),
        ({"attack": "PGD", "arguments": {"eps": 1}}, ConfigError, "expected none of eps, which"),
        ({"attack": "PGD", "arguments": {"step": 1}}, ConfigError, "torchattacks: PGD: .*'step'"),
        ({"attack": "PGD", "epsilon": None}, ConfigError, "epsilon: expected a number for PGD"),
    ],
)
def test_bad_settings_are_refused_at_planning(cheap, setting, kind, message):
    with pytest.raises(kind, match=message):
        Torchattacks(**setting).check(cheap.target)


def test_masks_and_a_missing_library_are_refused(thresholds, cheap, monkeypatch):
    with pytest.raises(CapabilityError, match="torchattacks: expected a task of Classification"):
        Torchattacks().check(thresholds.target)
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ConfigError, match=r"need the library: .*--no-deps torchattacks"):
        Torchattacks().check(cheap.target)
