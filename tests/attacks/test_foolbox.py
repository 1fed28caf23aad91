import random
import sys

import numpy as np
import pytest
import torch

import palpate
from palpate.attacks._peer import UnitRange, _drawing
from palpate.attacks._projection import size
from palpate.attacks.foolbox import Foolbox
from palpate.attacks.pgd import Pgd
from palpate.errors import BudgetError, CapabilityError, ConfigError, UnknownComponent
from palpate.outcome import Status


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equals_the_library_called_directly(cheap, norm):
    import foolbox

    target, images, labels = cheap
    epsilon = {"linf": 4 / 255, "l2": 0.5}[norm]
    arguments = {"steps": 5, "rel_stepsize": 0.3, "random_start": False}
    attack = Foolbox(norm=norm, epsilon=epsilon, attack="PGD", arguments=arguments, together=True)
    found = attack.search(target, images, labels)

    peer = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm](**arguments)
    model = foolbox.PyTorchModel(cheap.network, bounds=(0, 1), device="cpu")
    assert torch.equal(found.images, peer(model, images, labels, epsilons=epsilon)[1])
    assert set(found.status) == {Status.OK}


def test_equals_our_pgd(cheap):
    target, images, labels = cheap
    arguments = {"steps": 5, "abs_stepsize": 1 / 255, "random_start": False}
    theirs = Foolbox(epsilon=3 / 255, attack="LinfPGD", arguments=arguments)
    ours = Pgd(epsilon=3 / 255, steps=5, step_size=1 / 255, random_start=False)

    found = ours.search(target, images, labels).last
    same = torch.isclose(theirs(target, images, labels), found, atol=1e-6).float().mean()
    assert same > 0.999  # one by one and all at once round otherwise where a gradient is nearly 0


def test_random_draws_hang_on_the_sample(cheap):
    target, images, labels = cheap
    attack = Foolbox(attack="PGD", arguments={"steps": 2})
    whole = attack(target, images[:4], labels[:4], seeds=[1, 2, 3, 4])

    torch.manual_seed(7)
    assert torch.equal(attack(target, images[2:3], labels[2:3], seeds=[3]), whole[2:3])


def test_the_librarys_generators_are_set_and_put_back():
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    def states():
        return torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002

    before = states()
    with _drawing(2**40 + 5, torch.device("cpu")):
        first = draw()
    assert states() == before
    torch.rand(1)
    with _drawing(2**40 + 5, torch.device("cpu")):
        assert draw() == first


def test_other_bounds_are_the_librarys_range(cheap):
    """The same network on pixels of 100 to 300 is attacked in the same way."""
    target, images, labels = cheap
    wide = palpate.wrap(
        target.module, task=target.task, bounds=(100, 300), mean=(100.0,), std=(200.0,)
    )
    spec = {"attack": "PGD", "arguments": {"steps": 3, "random_start": False}, "together": True}
    plain = Foolbox(epsilon=0.02, **spec)(target, images, labels)
    scaled = Foolbox(epsilon=4.0, **spec)(wide, images * 200 + 100, labels)

    same = torch.isclose((scaled - 100) / 200, plain, atol=1e-5).float().mean()
    assert same > 0.99


def test_nearest_attacks_need_no_budget_and_are_cut_to_one(cheap):
    target, images, labels = cheap
    spec = {"norm": "l2", "attack": "DeepFoolAttack", "arguments": {"steps": 10}}
    free = size(Foolbox(epsilon=None, **spec)(target, images, labels) - images, "l2")
    held = size(Foolbox(epsilon=0.1, **spec)(target, images, labels) - images, "l2")

    assert float(free.max()) > 0.2
    assert float(held.max()) <= 0.1 + 1e-6


def test_an_attack_that_takes_the_norm_gets_ours(cheap):
    built = Foolbox(norm="l2", attack="HopSkipJumpAttack")._built(
        UnitRange(cheap.target).eval(), (1, 28, 28)
    )
    assert built.constraint == "l2"


def test_the_budget_is_checked_by_the_frame(cheap, monkeypatch):
    target, images, labels = cheap
    attack = Foolbox(epsilon=0.01)
    monkeypatch.setattr(
        Foolbox, "_craft", lambda self, attack, network, given: (given[0] + 0.1).clamp(0, 1)
    )
    with pytest.raises(BudgetError, match=r"expected at most 0.01, spent 0.1"):
        attack(target, images[:2], labels[:2])
    monkeypatch.setattr(Foolbox, "_craft", lambda self, attack, network, given: given[0] - 0.005)
    with pytest.raises(BudgetError, match="expected values within"):
        attack(target, torch.zeros_like(images[:2]), labels[:2])


@pytest.mark.parametrize(
    ("setting", "kind", "message"),
    [
        ({"attack": "LinfPDG"}, UnknownComponent, "foolbox has no attack 'LinfPDG'; did you mean"),
        ({"attack": "L2PGD"}, ConfigError, "norm: expected that of L2PGD, l2, got linf"),
        ({"attack": "PGD", "arguments": {"stesp": 3}}, ConfigError, "foolbox: PGD: .*'stesp'"),
        ({"attack": "PGD", "epsilon": None}, ConfigError, "epsilon: expected a number for PGD"),
        (
            {"attack": "HopSkipJumpAttack", "arguments": {"constraint": "l2"}},
            ConfigError,
            "arguments: expected none of constraint, which epsilon and norm set",
        ),
    ],
)
def test_bad_settings_are_refused_at_planning(cheap, setting, kind, message):
    with pytest.raises(kind, match=message):
        Foolbox(**setting).check(cheap.target)


def test_masks_and_a_missing_library_are_refused(thresholds, cheap, monkeypatch):
    with pytest.raises(CapabilityError, match="foolbox: expected a task of Classification"):
        Foolbox().check(thresholds.target)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(ConfigError, match=r"foolbox attacks need .*pip install 'palpate\[peers\]'"):
        Foolbox().check(cheap.target)
