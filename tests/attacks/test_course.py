"""What a search says of itself: the score it claims, and how its loss went."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typing_extensions import override

from palpate.attacks._climb import SteppedAttack
from palpate.attacks._course import Course
from palpate.attacks.apgd import Apgd
from palpate.attacks.deepfool import Deepfool
from palpate.attacks.fgsm import Fgsm
from palpate.attacks.pgd import Pgd
from palpate.attacks.random_search import RandomSearch
from palpate.attacks.simba import Simba
from palpate.attacks.spatial import Spatial
from palpate.attacks.square import Square
from palpate.contracts.oracles import batch, linear, probe
from palpate.scoring import scores


@dataclass(frozen=True)
class Downhill(SteppedAttack):
    """PGD with its sign the wrong way round."""

    version = 1

    @override
    def _run(self, search, seeds):
        images = search.images
        for _ in range(self.steps):
            step = self.epsilon / self.steps * search.gradient(images).sign()
            images = (images - step).clamp(*search.target.bounds)
        search.look(images)
        return images


@pytest.fixture
def given():
    return batch(16)


@pytest.fixture
def target():
    return probe()


@pytest.mark.parametrize(
    "attack",
    [
        Fgsm(epsilon=0.1),
        Pgd(epsilon=0.1, steps=8),
        Pgd(epsilon=0.1, steps=8, restarts=3, stop_at_success=True),
        Square(epsilon=0.1, queries=20),
        Apgd(epsilon=0.1, steps=10),
        Deepfool(),
    ],
    ids=lambda a: type(a).__name__,
)
def test_the_score_claimed_is_the_score_measured(attack, given, target):
    labels = target.predict(given).decisions

    found = attack.search(target, given.images, labels)
    again = scores(target.predict(given.with_images(found.images)), labels)

    assert [t.claimed for t in found.traces] == again.tolist()
    assert all(t.rise > 0 for t in found.traces)


def test_a_wrong_sign_shows_in_a_loss_that_never_rises(given, target):
    labels = target.predict(given).decisions

    wrong = Downhill(epsilon=0.1, steps=5).search(target, given.images, labels)

    assert [t.rise for t in wrong.traces] == [0.0] * len(given)


def test_a_search_that_stops_too_early_is_still_rising(given, target):
    labels = target.predict(given).decisions

    def late(steps):
        short = Pgd(epsilon=0.2, steps=steps, step_size=0.01, random_start=False)
        found = short.search(target, given.images, labels)
        return sum(t.late for t in found.traces) / len(given)

    assert late(8) > 0.15
    assert late(80) < 0.02


@pytest.mark.parametrize(
    "attack",
    [
        Pgd(epsilon=0.06, steps=6, restarts=2, stop_at_success=True),
        RandomSearch(perturbation={"name": "gaussian_noise", "severity": 5}, queries=15),
        Simba(epsilon=0.3, queries=15),
        Spatial(severity=1.0, angles=3, places=2, steps=4, restarts=2),
        Square(epsilon=0.1, queries=20),
    ],
    ids=lambda a: type(a).__name__,
)
def test_traces_do_not_hang_on_the_batch(attack):
    """Most samples leave early, some on the way: a linear model's rounding is each one's own."""
    target, given = linear(), batch(6, classes=2)
    labels = target.predict(given).decisions
    seeds = [40 + i for i in range(6)]

    def traces(size):
        found = []
        for rows in (slice(i, i + size) for i in range(0, 6, size)):
            found += attack.search(
                target, given.images[rows], labels[rows], seeds=seeds[rows]
            ).traces
        return np.array(found)

    whole = traces(6)
    np.testing.assert_array_equal(traces(2), whole)
    assert (whole[:, 2] > 0).any()


def test_the_late_part_is_that_of_a_samples_own_asks():
    """One rises to its fourth and last ask; the other stands still while it goes on alone."""
    course = Course.of(torch.zeros(2))
    for first in (1.0, 2.0, 3.0, 5.0):
        course.note(torch.tensor([first, 7.0]), None)
    for _ in range(20):
        course.note(torch.tensor([7.0]), torch.tensor([1]))

    assert course.late() == [0.5, 0.0]

    joined = Course.of(torch.zeros(3))
    joined.join(course, torch.tensor([2, 0]))
    assert joined.late() == [0.0, pytest.approx(math.nan, nan_ok=True), 0.5]
    assert joined.rise() == [0.0, pytest.approx(math.nan, nan_ok=True), 4.0]


def test_a_course_by_hand():
    course = Course.of(torch.zeros(2))
    assert all(math.isnan(x) for x in course.rise() + course.late())
    for first, second in ((1.0, 5.0), (2.0, 4.0), (3.0, 9.0), (5.0, 9.0)):
        course.note(torch.tensor([first, second]), None)
    assert course.rise() == [4.0, 4.0]
    assert course.late() == [0.5, 0.0]
    part = Course.of(torch.zeros(1))
    part.note(torch.tensor([6.0]), None)
    course.join(part, torch.tensor([1]))
    assert course.rise() == [4.0, 4.0]
    course.note(torch.tensor([13.0]), torch.tensor([0]))
    assert course.rise() == [12.0, 4.0]


def test_infinite_losses_stay_numbers():
    course = Course.of(torch.zeros(1))
    for loss in (1.0, 2.0, 3.0, torch.inf):
        course.note(torch.tensor([loss]), None)
    assert course.rise() == [pytest.approx(1e30)]
    assert course.late() == [1.0]
