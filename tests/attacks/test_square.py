import pytest
import torch

import palpate
from palpate.attacks._gradient import Search
from palpate.attacks._projection import size
from palpate.attacks._windows import Windows, bump, share_at, side_of
from palpate.attacks.pgd import Pgd
from palpate.attacks.square import Square
from palpate.contracts.oracles import batch, constant, linear
from palpate.errors import CapabilityError, ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.types import Prediction


def right(target, images, labels):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), labels)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 4 / 255), ("l2", 0.5)])
def test_as_strong_as_torchattacks(few, norm, epsilon):
    """Random searches draw differently: robust accuracies are compared, not images."""
    import torchattacks

    target, images, labels = few
    attack = Square(epsilon=epsilon, norm=norm, queries=60, rescale=True)
    ours = right(target, attack(target, images, labels), labels).mean()

    name = {"linf": "Linf", "l2": "L2"}[norm]
    peer = torchattacks.Square(few.network, norm=name, eps=epsilon, n_queries=60)
    theirs = right(target, peer(images, labels), labels).mean()
    clean = right(target, images, labels).mean()
    assert ours < clean
    assert ours <= theirs + 1 / 16 + 1e-6


def test_no_weaker_than_torchattacks_on_average_in_l2(cheap):
    """Half a point over many draws; 3 standard errors of the difference are allowed for chance."""
    import torchattacks

    target, images, labels = cheap
    pairs = []
    for number in range(6):
        seeds = [1000 * number + i for i in range(60)]
        attack = Square(norm="l2", epsilon=0.5, queries=100, rescale=True)
        ours = right(target, attack(target, images, labels, seeds=seeds), labels).mean()
        peer = torchattacks.Square(cheap.network, norm="L2", eps=0.5, n_queries=100, seed=number)
        pairs.append([ours, right(target, peer(images, labels), labels).mean()])

    ours, theirs = torch.tensor(pairs).unbind(1)
    clean = right(target, images, labels).mean()
    assert ours.mean() < clean - 0.05
    assert ours.mean() <= theirs.mean() + 0.005 + 3 * (ours - theirs).std() / 6**0.5


def test_the_first_window_is_the_largest(monkeypatch):
    """Iteration 0 of algorithm 1 draws with p itself; halving begins after 10 of 10,000."""
    asked = []
    monkeypatch.setattr(
        "palpate.attacks.square.share_at", lambda query, **_: asked.append(query) or 0.1
    )
    given = batch(2)
    Square(epsilon=0.001, queries=4)(linear(), given.images, torch.tensor([0, 1]))

    assert asked == [0, 1, 2]


def test_weaker_than_the_white_box(few):
    target, images, labels = few
    blind = right(target, Square(queries=40)(target, images, labels), labels).mean()
    seeing = right(target, Pgd(steps=10)(target, images, labels), labels).mean()

    assert seeing <= blind


def test_needs_no_gradients():
    class Steps(torch.nn.Module):
        def forward(self, images):
            score = (images * 64).round().mean(dim=(1, 2, 3)) / 64 - 0.5
            return torch.stack([-score, score], 1).detach()

    target = palpate.wrap(Steps().eval(), task=palpate.Classification(("dark", "bright")))
    given = batch(8)
    labels = target.logits(given.images).argmax(1)

    found = Square(epsilon=0.1, queries=100).search(target, given.images, labels)

    assert set(found.status) == {Status.OK}
    assert float(right(target, found.images, labels).mean()) < 0.5
    blind = Pgd(epsilon=0.1).search(target, given.images, labels)
    assert set(blind.status) == {Status.NO_GRADIENT}


def test_a_target_that_never_answers_differently_is_not_robust():
    given = batch(3)
    labels = torch.tensor([1, 1, 1])

    found = Square(queries=10).search(constant(), given.images, labels)

    assert set(found.status) == {Status.NO_GRADIENT}


def test_who_is_broken_asks_no_more():
    target, given = linear(), batch(8, classes=2, margin=0.2)
    found = Square(epsilon=0.2, queries=500).search(target, given.images, given.references)

    assert float(right(target, found.images, given.references).max()) == 0
    assert found.passes < 8 * 250


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("l2", 0.1)])
def test_steps_asked_ahead_change_nothing_but_the_number_of_asks(norm, epsilon):
    """On a model of exact arithmetic in effect: double, and one sample's row apart from others'."""
    target, given = linear(), batch(6, classes=2, margin=0.2)
    target.module.double()
    images = given.images.double()
    labels = target.logits(images).argmax(1)
    attack, found = Square(norm=norm, epsilon=epsilon, queries=120), {}
    for room in (1, 6, 64):
        search, asked = Search(target, images, labels, attack.objective), []
        ask = search.answer
        search.answer = lambda x, rows=None, ask=ask, asked=asked: (
            asked.append(len(x)) or ask(x, rows)
        )
        found[room] = (attack.pursue(search, list(range(6)), room=room), search, len(asked))

    last, alone, most = found.pop(1)
    for other, search, _ in found.values():
        assert torch.allclose(other, last, atol=1e-9)
        assert torch.allclose(search.best, alone.best, atol=1e-9)
        assert torch.equal(search.score, alone.score)
        assert search.course.rise() == pytest.approx(alone.course.rise(), abs=1e-6)
        assert search.course.late() == pytest.approx(alone.course.late(), abs=1e-5, nan_ok=True)
    assert found[64][2] < most


def test_a_step_that_changes_nothing_is_not_asked():
    target, given = linear(), batch(2, classes=2, margin=0.2)
    images = torch.zeros_like(given.images)
    labels = target.logits(images).argmax(1)
    attack = Square(
        epsilon=1e-5, queries=400, rescale=True
    )  # at 0 half of all windows are cut off entirely
    search = Search(target, images, labels, attack.objective)
    attack.pursue(search, [0, 1], room=2)

    assert search.passes < 2 * 400 * 0.9
    assert len(search.course.peaks) == 401


def test_masks_and_volumes(thresholds):
    target, images, masks = thresholds
    found = Square(epsilon=0.3, queries=60)(target, images, masks)
    assert float(right(target, found, masks).max()) < float(right(target, images, masks).min())

    task = palpate.Classification(("a", "b"))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 6**3, 2)).eval()
    volume = palpate.wrap(net, task=task)
    cubes = torch.rand((2, 2, 6, 6, 6), generator=torch.Generator().manual_seed(1))
    moved = Square(epsilon=0.1, queries=20)(volume, cubes, torch.tensor([0, 1])) - cubes
    assert float(moved.abs().max()) <= 0.1 + 1e-6
    with pytest.raises(CapabilityError, match="square: expected images"):
        Square(norm="l2", queries=5)(volume, cubes, torch.tensor([0, 1]))


def test_l2_changes_spend_the_budget_while_they_stay_in_the_range():
    target, given = linear(), batch(4, classes=2, margin=0.45)
    attack = Square(norm="l2", epsilon=0.1, queries=30)
    labels = target.logits(given.images).argmax(1)
    moved = attack.search(target, given.images, labels).last - given.images

    assert torch.allclose(size(moved, "l2"), torch.full((4,), 0.1), rtol=1e-3)


def test_schedule_of_the_paper():
    """Supplement B: p is halved after 10, 50, 200, ... of 10,000 queries."""
    shares = [
        share_at(q, first=0.8, queries=10_000, rescale=True) for q in (0, 10, 11, 51, 201, 9999)
    ]
    assert shares == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 2**9]
    assert share_at(6, first=0.8, queries=5000, rescale=True) == 0.4
    assert share_at(6, first=0.8, queries=5000, rescale=False) == 0.8
    assert [side_of(0.8, (28, 28)), side_of(1e-9, (28, 28)), side_of(1.0, (28, 40))] == [25, 1, 28]


def test_windows_lie_inside_and_bumps_cancel():
    corner = torch.tensor([[0.0, 0.999], [0.5, 0.5]])
    mask = Windows(3, (8, 10)).masks(corner)

    assert mask.flatten(1).sum(1).tolist() == [9, 9]
    assert bool(mask[0, 0, :3, 7:].all())
    for side in (3, 5, 8):
        made = bump(side, torch.zeros(1))
        assert float(made.norm()) == pytest.approx(1)
        assert bool((made[: side // 2] > 0).all())
        assert bool((made[side // 2 :] < 0).all())


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="queries of 1 or more"):
        Square(queries=0)
