import pytest
import torch

from palpate.attacks._gradient import Search
from palpate.attacks._projection import size
from palpate.attacks.deepfool import Deepfool
from palpate.attacks.fab import Fab
from palpate.contracts.oracles import batch, linear, probe
from palpate.errors import ConfigError


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()

    found = Fab(norm=norm, steps=20)(target, given.images, logits.argmax(1))

    least = logits[:, 1].abs() / dual
    assert torch.allclose(size(found - given.images, norm), least, rtol=1e-2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_farther_than_torchattacks(few, norm):
    import torchattacks

    target, images, labels = few
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    options = {"linf": ("Linf", 8 / 255), "l2": ("L2", 2.0)}[norm]
    found = Fab(norm=norm, steps=10)(target, images, labels)

    peer = torchattacks.FAB(few.network, norm=options[0], eps=options[1], steps=10, n_classes=2)
    ours, theirs = (size(x - images, norm) for x in (found, peer(images, labels)))
    found_by_both = theirs > 0  # theirs gives back the image beyond eps
    assert int(found_by_both.sum()) > 8
    assert bool((ours <= 1.02 * theirs)[found_by_both].all())
    assert int((target.logits(found).argmax(1) == labels).sum()) == 0


def test_nearer_than_deepfool(few):
    target, images, labels = few
    fab = size(Fab(steps=10)(target, images, labels) - images, "linf")
    deepfool = size(Deepfool()(target, images, labels) - images, "linf")

    assert bool((fab <= deepfool + 1e-6).all())


def test_one_target_at_a_time_reaches_what_all_at_once_reach():
    target, given = probe(), batch(6)
    labels = target.logits(given.images).argmax(1)
    every = size(Fab(steps=20)(target, given.images, labels) - given.images, "linf")
    each = size(Fab(steps=20, targets=9)(target, given.images, labels) - given.images, "linf")

    assert torch.allclose(each, every, rtol=0.1)


@pytest.mark.parametrize("at_once", [False, True])
def test_enough_is_enough_whatever_is_asked_together(at_once):
    target, given = probe(), batch(6)
    labels = target.logits(given.images).argmax(1)
    attack, found = Fab(steps=10, targets=2), {}
    full = size(attack(target, given.images, labels) - given.images, "linf")
    enough = float(full.sort().values[2:4].mean())  # no sample is just there
    for room in (1, 6, 50):
        search = Search(target, given.images, labels, nearest="linf")
        attack.pursue(search, room=room, enough=enough, leave_at_once=at_once)
        found[room] = search

    alone = found.pop(1)
    assert torch.equal(alone.distance <= enough, full <= enough)
    for search in found.values():
        assert torch.allclose(search.distance, alone.distance, atol=1e-6)
        assert torch.allclose(search.best, alone.best, atol=1e-6)
    if at_once:
        spent = Search(target, given.images, labels, nearest="linf")
        attack.pursue(spent, room=6)
        assert alone.passes < spent.passes


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="targets: expected 0 or more, got -1"):
        Fab(targets=-1)
