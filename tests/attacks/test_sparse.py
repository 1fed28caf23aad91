"""The L1 ball within the legal range: projection, steps, starts and PGD in it."""

import foolbox
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from palpate.attacks._projection import project, size
from palpate.attacks._sparse import entries, nearest, sparse_way
from palpate.attacks._start import uniform_start
from palpate.attacks.apgd import Apgd
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, linear
from palpate.scoring import scores
from palpate.types import Bounds, Prediction

WIDE = Bounds(-1.0, 2.0)


def knapsack(images, weight, labels, epsilon, bounds):
    """Most that w · x can move: fill the entries with the largest weights first."""
    gains = []
    for image, label in zip(images.flatten(1).numpy(), labels.tolist(), strict=True):
        way = (1 - 2 * label) * weight.flatten().numpy()
        room = np.where(way > 0, bounds.high - image, image - bounds.low)
        left, gain = epsilon, 0.0
        for entry in np.argsort(-np.abs(way)):
            spent = min(left, room[entry])
            left, gain = left - spent, gain + spent * abs(way[entry])
        gains.append(gain)
    return torch.tensor(gains, dtype=torch.float32)


def test_projects_as_a_solver_does():
    draw = np.random.default_rng(0)
    for epsilon in (0.1, 0.7, 2.0, 50.0):
        clean = draw.uniform(-1, 2, 6)
        point = clean + draw.normal(0, 1.5, 6)
        # x = clean + p - m, p and m not negative: the L1 norm becomes linear
        found = minimize(
            lambda v, point=point, clean=clean: float(((clean + v[:6] - v[6:] - point) ** 2).sum()),
            np.zeros(12),
            bounds=[(0, 2 - c) for c in clean] + [(0, c + 1) for c in clean],
            constraints={"type": "ineq", "fun": lambda v, epsilon=epsilon: epsilon - v.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        expected = clean + found.x[:6] - found.x[6:]
        shape = (1, 1, 2, 3)
        ours = nearest(
            torch.tensor(point).reshape(shape),
            torch.tensor(clean).reshape(shape),
            epsilon=epsilon,
            bounds=WIDE,
        )
        assert np.allclose(ours.flatten().numpy(), expected, atol=2e-4)


def test_stays_in_ball_and_box_and_leaves_alone_what_is_in_both():
    draw = torch.Generator().manual_seed(1)
    clean = torch.rand((50, 3, 20, 20), generator=draw)
    far = clean + 3 * torch.randn(clean.shape, generator=draw)
    for epsilon in (1e-3, 0.5, 12.0, 400.0):
        found = project(far, clean, norm="l1", epsilon=epsilon, bounds=Bounds())
        spent = size(found.double() - clean.double(), "l1")
        assert float(spent.max()) <= epsilon
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert float(spent.min()) > 0.99 * min(epsilon, 300) or epsilon == 1e-3
    near = (clean + 1e-5 * torch.randn(clean.shape, generator=draw)).clamp(0, 1)
    kept = project(near, clean, norm="l1", epsilon=1.0, bounds=Bounds())
    assert torch.allclose(kept, near, atol=1e-7)
    each = torch.linspace(0.1, 5, 50).reshape(-1, 1, 1, 1)
    own = project(far, clean, norm="l1", epsilon=each, bounds=Bounds())
    assert torch.allclose(size(own - clean, "l1"), each.flatten(), rtol=1e-3)


def test_starts_are_uniform_in_the_ball():
    """In n dimensions the radius is distributed as ε · U^(1/n)."""
    clean = torch.full((4000, 1, 1, 3), 0.5)
    start = uniform_start(clean, range(4000), norm="l1", epsilon=0.4, bounds=Bounds())
    radius = size(start - clean, "l1") / 0.4

    assert float(radius.max()) <= 1
    assert float((radius**3).mean()) == pytest.approx(0.5, abs=0.02)
    assert abs(float((start - clean).mean())) < 0.005


def test_steps_are_sparse_and_full_entries_do_not_count():
    gradient = torch.tensor([[4.0, -3.0, 2.0, 1.0, 0.0]]).reshape(1, 1, 1, 5)
    images = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5]]).reshape(1, 1, 1, 5)
    way = sparse_way(gradient, images, count=2, bounds=Bounds())

    assert way.flatten().tolist() == [0.5, -0.5, 0.5, 0.0, 0.0]
    counts = [entries(3000, share=s, epsilon=12.0, bounds=Bounds()) for s in (0.0, 0.5, 1.0)]
    assert counts == [150, 42, 12]
    both, each = images.expand(2, -1, -1, -1), torch.tensor([1, 2])
    pair = sparse_way(gradient.expand_as(both), both, count=each, bounds=Bounds())
    assert pair.flatten(1).tolist() == [[1.0, -1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.5, 0.0, 0.0]]
    assert entries(5, share=0.0, epsilon=12.0, bounds=Bounds()) == 5


@pytest.mark.parametrize(("kind", "steps", "least"), [(Pgd, 40, 0.97), (Apgd, 100, 0.95)])
@pytest.mark.parametrize("epsilon", [0.5, 3.0, 12.0])
def test_closed_form_on_a_linear_model_where_the_range_binds(kind, steps, least, epsilon):
    target, given = linear(), batch(8)
    weight = target.module.get_parameter("weight").detach()
    labels = target.logits(given.images).detach().argmax(1)
    attack = kind(norm="l1", epsilon=epsilon, steps=steps, loss="margin")

    found = attack(target, given.images, labels)

    assert float(size(found.double() - given.images.double(), "l1").max()) <= epsilon
    change = (target.logits(found) - target.logits(given.images)).detach()[:, 1]
    best = knapsack(given.images, weight, labels, epsilon, Bounds())
    reached = change * (1 - 2 * labels) / best
    assert float(reached.max()) <= 1 + 1e-5
    assert float(reached.min()) > least


@pytest.mark.parametrize("epsilon", [2.0, 5.0])
def test_stronger_than_foolbox_at_the_same_budget(few, epsilon):
    """Its L1 step takes all entries alike and clips after projecting."""
    target, images, labels = few
    model = foolbox.PyTorchModel(few.network, bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.L1PGD(steps=20)
    theirs = peer(model, images, foolbox.criteria.Misclassification(labels), epsilons=epsilon)[1]
    ours = Pgd(norm="l1", epsilon=epsilon, steps=20)(target, images, labels)

    def right(x):
        return float(scores(Prediction(target.logits(x).detach(), target.task), labels).mean())

    assert right(ours) <= right(theirs)
    assert right(ours) < right(images)


def test_masks(thresholds):
    """Pixels nearest to the threshold are turned first; each costs its distance from it."""
    target, images, masks = thresholds
    found = Pgd(norm="l1", epsilon=6.0, steps=60)(target, images, masks)
    wrong = (target.logits(found).argmax(1) != masks).flatten(1).sum(1)
    costs = (images[:, 0] - 0.5).abs().flatten(1).sort(dim=1).values.cumsum(dim=1)

    assert bool((wrong <= (costs <= 6.0).sum(1)).all())
    assert int(wrong.min()) > 5
