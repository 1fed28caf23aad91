import pytest
import torch

import palpate
from palpate.attacks.apgd import Apgd
from palpate.attacks.autoattack import Autoattack
from palpate.attacks.fab import Fab
from palpate.attacks.pgd import Pgd
from palpate.attacks.square import Square
from palpate.contracts.oracles import batch, linear, probe
from palpate.errors import CapabilityError, ConfigError
from palpate.scoring import scores
from palpate.types import Prediction


def right(target, images, labels):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), labels)


def test_settings_are_the_published_ones():
    ce, dlr, fab, square = Autoattack()._members(probe().task)

    assert (ce.loss, ce.steps, ce.restarts, ce.targets) == ("ce", 100, 1, 0)
    assert (dlr.loss, dlr.steps, dlr.restarts, dlr.targets) == ("dlr", 100, 1, 9)
    assert (fab.steps, fab.targets, fab.bias, fab.extrapolation, fab.backward) == (
        100,
        9,
        0.1,
        1.05,
        0.9,
    )
    assert (square.queries, square.first_share, square.rescale, square.loss) == (
        5000,
        0.8,
        False,
        "margin",
    )


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 1.5 / 255), ("l2", 0.2)])
def test_never_weaker_than_its_members_and_the_peers(few, norm, epsilon):
    """Below four classes the peers' ensembles crash, so their members are asked one by one."""
    import torchattacks

    target, images, labels = few
    attack = Autoattack(epsilon=epsilon, norm=norm, steps=8, queries=30)
    ours = right(target, attack(target, images, labels), labels)

    apgd = Apgd(epsilon=epsilon, norm=norm, steps=8)
    assert bool((ours <= right(target, apgd(target, images, labels), labels)).all())
    name = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = right(target, images, labels)
    for peer in (
        torchattacks.APGD(few.network, norm=name, eps=epsilon, steps=8),
        torchattacks.FAB(few.network, norm=name, eps=epsilon, steps=8, n_classes=2),
    ):
        theirs = torch.minimum(theirs, right(target, peer(images, labels), labels))
    assert 0 < float(ours.mean()) <= float(theirs.mean()) + 0.005


def test_leaving_early_gives_the_same_robust_accuracy_for_less(few):
    target, images, labels = few
    found = {
        stop: Autoattack(epsilon=1.5 / 255, steps=8, queries=0, stop_at_success=stop).search(
            target, images, labels
        )
        for stop in (False, True)
    }

    assert torch.equal(*(right(target, f.images, labels) for f in found.values()))
    assert found[True].passes < found[False].passes


def test_every_member_climbs_its_own_loss(few, monkeypatch):
    target, images, labels = few
    asked = []
    for member in (Apgd, Fab, Square):
        run = member.pursue

        def noted(self, search, *rest, run=run, **options):
            asked.append((type(self).__name__, search.objective.loss))
            return run(self, search, *rest, **options)

        monkeypatch.setattr(member, "pursue", noted)
    Autoattack(epsilon=1e-5, steps=2, queries=3)(target, images, labels)

    assert asked == [("Apgd", "ce"), ("Apgd", "margin"), ("Fab", "ce"), ("Square", "margin")]


@pytest.mark.parametrize("classes", [2, 3, 4, 8, 10])
def test_any_number_of_classes(classes):
    """attacks.md, finding 2: the original crashes on 2, 3 and 8."""
    draw = torch.Generator().manual_seed(classes)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes)).eval()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    names = tuple(str(k) for k in range(classes))
    target = palpate.wrap(module, task=palpate.Classification(names))
    images = torch.rand((4, 1, 8, 8), generator=draw)
    labels = target.logits(images).argmax(1)

    found = Autoattack(epsilon=0.3, steps=8, queries=10)(target, images, labels)

    assert float(right(target, found, labels).max()) == 0


def test_never_weaker_than_pgd_sample_by_sample_on_the_oracle():
    target, given = linear(), batch(32, classes=2, margin=0.1)
    for epsilon in (0.002, 0.01):
        own = Autoattack(epsilon=epsilon, steps=10, queries=0)
        other = Pgd(epsilon=epsilon)
        pair = [
            right(target, a(target, given.images, given.references), given.references)
            for a in (own, other)
        ]
        assert bool((pair[0] <= pair[1]).all())


def test_turns_as_many_of_several_labels_as_can_be_turned(labelled):
    distances = labelled.distances("linf")
    attack = Autoattack(epsilon=float(distances.median()) * 1.01, steps=20, queries=30)

    found = attack(labelled.target, labelled.images, labelled.labels)

    expected = (distances < attack.epsilon).float().mean(1)
    assert 0 < float(expected.mean()) < 1
    assert torch.equal(labelled.wrong(found), expected)


def test_masks_and_bad_settings_are_refused(thresholds):
    with pytest.raises(CapabilityError, match="got Segmentation; the ensemble for masks: sea"):
        Autoattack().check(thresholds.target)
    with pytest.raises(ConfigError, match="targets of 1 or more"):
        Autoattack(targets=0)
    Autoattack().check(probe())
