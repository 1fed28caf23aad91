import pytest
import torch

from palpate.attacks._projection import size
from palpate.attacks._start import reseed
from palpate.attacks.random_search import RandomSearch
from palpate.contracts.oracles import batch, constant, linear
from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.errors import ConfigError, UnknownComponent
from palpate.occlusions.patch_drop import PatchDrop
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.types import Prediction


def right(target, images, references):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), references)


def test_keeps_the_worst_of_the_same_draws():
    """The logit of a linear model says which of five draws is the worst."""
    target, given = linear(), batch(6, classes=2, margin=0.3)
    labels = target.logits(given.images).argmax(1)
    noise = {"name": "gaussian_noise", "severity": 1}
    seeds = [100 + i for i in range(6)]
    found = RandomSearch(perturbation=noise, queries=5)(target, given.images, labels, seeds=seeds)

    sign = 1 - 2 * labels.float()
    reached = sign * target.logits(found)[:, 1].detach()
    standing = (reached < 0).nonzero().flatten().tolist()  # who is broken draws no more
    assert len(standing) > 2
    for i in standing:
        one = given.images[i : i + 1]
        drawn = [GaussianNoise(severity=1)(one, seeds=[reseed(seeds[i], k)]) for k in range(5)]
        logits = target.logits(torch.cat(drawn)).detach()
        assert float((sign[i] * logits[:, 1]).max()) == pytest.approx(float(reached[i]), abs=1e-5)


def test_worse_than_one_draw_and_no_better_than_fewer(cheap):
    target, images, labels = cheap
    noise = {"name": "gaussian_noise", "severity": 1}
    single = RandomSearch(perturbation=noise, queries=1)(target, images, labels)
    worst = RandomSearch(perturbation=noise, queries=15)(target, images, labels)

    assert right(target, worst, labels).mean() < right(target, single, labels).mean()
    assert bool((right(target, worst, labels) <= right(target, single, labels)).all())


def test_masks_and_occlusions(thresholds):
    target, images, masks = thresholds
    spec = {"name": "patch_drop", "coverage": "1/4", "patch_size": 4}
    attack = RandomSearch(perturbation=spec, queries=30)
    found = attack(target, images, masks)

    hidden = (found != images).float().mean()
    assert 0 < hidden <= 0.26
    average = PatchDrop(coverage=0.25, patch_size=4)(images, seeds=[1, 2, 3])
    assert right(target, found, masks).mean() <= right(target, average, masks).mean()


def test_a_budget_limits_the_draws():
    target, given = linear(), batch(4, classes=2, margin=0.2)
    attack = RandomSearch(norm="l2", epsilon=0.3, queries=5)
    moved = attack(target, given.images, given.references) - given.images

    assert torch.allclose(size(moved, "l2"), torch.full((4,), 0.3), atol=1e-5)


def test_queries_are_kept_and_no_answer_is_said():
    found = RandomSearch(queries=7).search(constant(), batch(3).images, torch.tensor([1, 1, 1]))

    assert found.passes == 3 * 8
    assert set(found.status) == {Status.NO_GRADIENT}


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("gausian_noise", UnknownComponent, "no corruption or occlusion 'gausian_noise'; did you"),
        ({"severity": 3}, ConfigError, "expected the name of a corruption or an occlusion"),
        ({"name": "gaussian_noise", "trials": 5}, ConfigError, "with queries in place of trials"),
        ({"name": "gaussian_noise", "severity": 9}, ConfigError, "severity: expected 0 to 5"),
        ("pgd", UnknownComponent, "no corruption or occlusion 'pgd'"),
    ],
)
def test_bad_settings_are_refused(spec, kind, message):
    with pytest.raises(kind, match=message):
        RandomSearch(perturbation=spec)
