import pytest
import torch

import palpate
from palpate.attacks import apgd
from palpate.attacks._apgd_sparse import SparseState
from palpate.attacks._apgd_state import Ball, State
from palpate.attacks._gradient import Answer, Search
from palpate.attacks._projection import project, size
from palpate.attacks.apgd import Apgd
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, linear, probe
from palpate.errors import CapabilityError, ConfigError
from palpate.scoring import scores
from palpate.types import Bounds, Prediction


def right(target, images, labels):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), labels)


def test_checkpoints_of_the_paper():
    """Section 3.1 with N = 100: 22, 41, 57, 70, 80, 87, then every 6."""
    assert State.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 1.5 / 255), ("l2", 0.2)])
def test_agrees_with_torchattacks_from_the_same_start(few, monkeypatch, norm, epsilon):
    import torchattacks

    target, images, labels = few

    def same_start(clean, seeds, *, norm, epsilon, bounds):
        torch.manual_seed(0)
        if norm == "linf":
            way = 2 * torch.rand(clean.shape) - 1
            way = way / way.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
        else:
            way = torch.randn(clean.shape)
            way = way / way.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        return project(clean + epsilon * way, clean, norm=norm, epsilon=epsilon, bounds=bounds)

    monkeypatch.setattr(apgd, "border_start", same_start)
    still = right(target, images, labels) > 0  # theirs starts only samples that are right
    images, labels = images[still], labels[still]
    ours = Apgd(epsilon=epsilon, norm=norm, steps=20)(target, images, labels)

    name = {"linf": "Linf", "l2": "L2"}[norm]
    peer = torchattacks.APGD(few.network, norm=name, eps=epsilon, steps=20, seed=0)
    theirs = peer(images, labels)
    assert 0 < float(right(target, ours, labels).mean()) < 1
    assert torch.equal(right(target, ours, labels), right(target, theirs, labels))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_never_weaker_than_pgd_on_the_trained_network(few, norm):
    target, images, labels = few
    epsilon = 1 / 255 if norm == "linf" else 0.15
    strong = Apgd(epsilon=epsilon, norm=norm, steps=15)(target, images, labels)
    weak = Pgd(epsilon=epsilon, norm=norm, steps=15)(target, images, labels)

    assert right(target, strong, labels).mean() <= right(target, weak, labels).mean() + 0.005


def test_no_weaker_than_sparse_pgd_on_the_trained_network(few):
    target, images, labels = few
    found = {}
    for kind in (Apgd, Pgd):
        moved = kind(norm="l1", epsilon=1.0, steps=25)(target, images, labels)
        assert float(size(moved.double() - images.double(), "l1").max()) <= 1.0
        logits = target.logits(moved).detach()
        loss = torch.nn.functional.cross_entropy(logits, labels)
        found[kind] = right(target, moved, labels).mean(), float(loss)

    assert found[Apgd][0] <= found[Pgd][0]
    assert found[Apgd][1] > found[Pgd][1]


def test_a_sparse_step_is_long_again_as_long_as_the_best_point_grows_sparser():
    """Mind the box, section 3.2: k = |x_max - x|_0 / 1.5; the step is ε, or shrinks by 1.5."""
    clean = torch.zeros((2, 1, 1, 100))
    answer = Answer(torch.zeros(2, 2), torch.zeros(2), torch.ones_like(clean))
    ball = Ball("l1", 3.0, Bounds())
    state = SparseState.at(clean, clean, answer, ball)
    assert state.count.tolist() == [20, 20]
    assert state.step_size.tolist() == [3.0, 3.0]

    moved = clean.clone()
    moved[0, ..., :30], moved[1, ..., :99] = 0.1, 0.1
    state = state.then(moved, answer._replace(loss=torch.ones(2))).judged(4, ball)

    assert state.count.tolist() == [20, 66]
    assert state.step_size.tolist() == [3.0, 2.0]
    assert SparseState.checkpoints(100) == list(range(4, 101, 4))
    for _ in range(8):
        state = state.judged(4, ball)
    assert state.step_size.tolist() == pytest.approx([0.3, 0.3])


def test_targets_of_two_three_and_four_classes():
    """attacks.md, finding 2: the original crashes below ten classes."""
    two, given = linear(), batch(16, classes=2, margin=0.1)
    found = Apgd(epsilon=0.1, steps=10, loss="dlr", targets=9)(two, given.images, given.references)
    assert float(right(two, found, given.references).max()) == 0

    three = probe()
    given = batch(8)
    labels = three.logits(given.images).argmax(1)
    attack = Apgd(epsilon=0.5, steps=20, loss="dlr", targets=9)
    found = attack(three, given.images, labels)
    assert float(right(three, found, labels).mean()) < 1


def test_leaving_early_gives_the_same_robust_accuracy(few):
    target, images, labels = few
    found = {
        stop: Apgd(epsilon=1.5 / 255, steps=8, stop_at_success=stop).search(target, images, labels)
        for stop in (False, True)
    }

    assert torch.equal(*(right(target, f.images, labels) for f in found.values()))
    assert found[True].passes < found[False].passes


@pytest.fixture(scope="module")
def ten():
    """A random network of ten classes that is right about its images."""
    draw = torch.Generator().manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
    ).eval()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=draw))
    target = palpate.wrap(module.double(), task=palpate.Classification(tuple("0123456789")))
    images = torch.rand((12, 1, 8, 8), generator=draw, dtype=torch.float64)
    return target, images, target.logits(images).argmax(1).detach()


@pytest.mark.parametrize("stop", [False, True])
def test_classes_tried_together_give_what_they_give_in_turn(ten, stop):
    target, images, labels = ten
    attack = Apgd(epsilon=0.012, steps=10, loss="dlr", targets=9, stop_at_success=stop)
    found = {}
    for room in (1, 5, 12, 200):
        search = Search(target, images, labels, attack.objective)
        found[room] = (attack.pursue(search, list(range(12)), room=room), search)

    last, alone = found.pop(1)
    assert 0 < float((alone.score > 0).float().mean()) < 1
    for other, search in found.values():
        assert torch.equal(search.score > 0, alone.score > 0)
        assert torch.allclose(search.best, alone.best, atol=1e-9)
        assert torch.allclose(other, last, atol=1e-9)
        assert torch.allclose(search.loss, alone.loss, atol=1e-6)


def test_no_more_are_asked_at_once_than_there_is_room_for(ten, monkeypatch):
    target, images, labels = ten
    asked = []
    answer = Search.answer
    monkeypatch.setattr(
        Search, "answer", lambda s, x, rows=None: asked.append(len(x)) or answer(s, x, rows)
    )
    attack = Apgd(epsilon=0.003, steps=4, loss="dlr", targets=9)
    attack.pursue(Search(target, images[:4], labels[:4]), list(range(4)), room=12)

    assert asked == [4, *[12] * 5 * 3]


def test_climbs_a_loss_on_masks(thresholds):
    target, images, masks = thresholds
    found = Apgd(epsilon=0.3, steps=20, loss="segpgd")(target, images, masks)

    distance = (images[:, 0] - 0.5).abs()
    sure = (distance - 0.3).abs() > 1e-4
    flipped = target.logits(found).argmax(1) != masks
    assert torch.equal(flipped[sure], (distance < 0.3)[sure])


def test_bad_settings_are_refused(thresholds):
    with pytest.raises(ConfigError, match="targets: expected loss dlr or margin, got 'ce'"):
        Apgd(targets=3)
    with pytest.raises(ConfigError, match="loss: expected one of .* for Classification of 3"):
        Apgd(loss="dlr").check(probe())
    with pytest.raises(CapabilityError, match="apgd: expected a task of Classification, got Seg"):
        Apgd(loss="margin", targets=1).check(thresholds.target)
