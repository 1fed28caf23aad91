import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import nn

import palpate
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, probe
from palpate.defences._certificate import Plan, lower_end, prove, rejected
from palpate.defences.randomised_smoothing import RandomisedSmoothing
from palpate.errors import ConfigError
from palpate.seeds import Seeds
from palpate.types import Batch

TWO = palpate.Classification(("a", "b"))
SEEDS = Seeds(0, "test")


class Plane(nn.Module):
    """Class 1 on one side of w·x = b."""

    def __init__(self, weights, bias):
        super().__init__()
        self.register_buffer("weights", weights)
        self.bias = bias

    def forward(self, images):
        score = images.flatten(1) @ self.weights - self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Threshold(nn.Module):
    """A pixel is foreground where it is brighter than a half."""

    def forward(self, images):
        return (images - 0.5) * 10


def given(images, references, prompts=None):
    names = tuple(f"s{i}" for i in range(len(images)))
    return Batch(images, references, names, names, ("",) * len(images), prompts)


def linear(count=6):
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(16, generator=generator)
    images = torch.rand(count, 1, 4, 4, generator=generator)
    bias = float((images.flatten(1) @ weights).mean())
    exact = (images.flatten(1) @ weights - bias) / weights.norm()
    target = palpate.wrap(Plane(weights, bias).eval(), task=TWO)
    return target, given(images, (exact > 0).long()), exact.abs()


def test_the_radius_of_a_linear_model_is_its_distance_from_the_plane():
    target, samples, exact = linear()
    plan = Plan(0.5, 100, 20_000, 0.999, 0.75, "holm")

    found = prove(target, samples, plan, SEEDS)

    for certificate, distance in zip(found, exact.tolist(), strict=True):
        assert certificate.radius <= distance
        # what 20,000 draws must give up: about three deviations of the share
        share = norm.cdf(distance / 0.5)
        given_up = norm.ppf(share - 4.5 * math.sqrt(share * (1 - share) / 20_000)) * 0.5
        assert certificate.radius >= max(given_up, 0.0)
        assert certificate.certified == (certificate.radius > 0)


def test_certificates_hold_as_often_as_they_promise():
    """The distance is known: a radius beyond it is wrong, and may be so in one of ten."""
    target, several, exact = linear()
    distance, count = float(exact[0]), 600
    images = several.images[:1].repeat(count, 1, 1, 1)
    samples = given(images, several.references[:1].repeat(count))
    plan = Plan(4 * distance, 10, 40, 0.9, 0.75, "holm")

    found = prove(target, samples, plan, SEEDS)

    wrong = sum(c.radius > distance for c in found)
    assert wrong > 0
    assert binomtest(wrong, count, 0.1, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("hits", "draws"), [(0, 10), (7, 10), (990, 1000), (1000, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_lower_end_equals_statsmodels_and_scipy(hits, draws, confidence):
    low, _ = proportion_confint(hits, draws, alpha=2 * (1 - confidence), method="beta")
    test = binomtest(hits, draws, alternative="greater")

    found = lower_end(hits, draws, confidence)

    assert found == pytest.approx(0.0 if hits == 0 else low, abs=1e-12)
    assert found == pytest.approx(test.proportion_ci(confidence, method="exact").low, abs=1e-9)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_corrections_equal_statsmodels(correction):
    rng = np.random.default_rng(0)
    for level in (0.001, 0.05, 0.3):
        p_values = np.concatenate([rng.random(30), rng.random(20) * 1e-3, [0.0, 1.0, 1.0]])
        expected = multipletests(p_values, alpha=level, method=correction)[0]
        assert np.array_equal(rejected(p_values, level=level, correction=correction), expected)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_pixels_are_certified_where_they_are_far_enough_from_the_threshold(correction, exclusive):
    classes = ("background", "organ") if exclusive else ("organ",)
    target = palpate.wrap(
        Threshold().eval(), task=palpate.Segmentation(classes, exclusive=exclusive)
    )
    image = torch.linspace(0.0, 1.0, 101).reshape(1, 1, 1, 101)
    mask = (image[:, 0] > 0.5).long() if exclusive else (image > 0.5).long()
    wrong = mask.clone()
    wrong[..., -1] = 0
    plan = Plan(0.1, 50, 4000, 0.999, 0.75, correction)

    (found,) = prove(target, given(image, mask), plan, SEEDS)
    (less,) = prove(target, given(image, wrong), plan, SEEDS)

    radius = 0.1 * norm.ppf(0.75)
    far = float(((image - 0.5).abs() > radius).float().mean())
    assert found.radius == pytest.approx(radius)
    assert far - 0.05 < found.certified <= far
    assert found.certified + found.abstained == pytest.approx(1)
    assert less.certified == pytest.approx(found.certified - 1 / 101)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_all_pixels_of_an_image_are_right_together_as_often_as_promised(correction):
    """Every pixel lies just where the vote is the threshold: any certificate is a wrong one."""
    target = palpate.wrap(
        Threshold().eval(), task=palpate.Segmentation(("organ",), exclusive=False)
    )
    sigma, count = 0.2, 300
    image = torch.full((count, 1, 1, 20), 0.5 + sigma * float(norm.ppf(0.75)))
    samples = given(image, torch.ones(count, 1, 1, 20, dtype=torch.int64))
    plan = Plan(sigma, 20, 100, 0.9, 0.75, correction)

    found = prove(target, samples, plan, SEEDS)

    wrong = sum(c.abstained < 1 for c in found)
    assert binomtest(wrong, count, 0.1, alternative="greater").pvalue > 0.01
    assert wrong > 0


def test_the_decision_is_the_majority_of_the_votes():
    bare, samples = probe(), batch(64)
    how = RandomisedSmoothing(sigma=0.5, samples=9)
    smoothed = how.protect(bare)

    module = smoothed.module
    images = (samples.images - torch.tensor(bare.mean)) / torch.tensor(bare.std)
    votes = torch.zeros(64, len(bare.task.classes))
    for copy in range(9):
        noisy = images + module._noise(images, copy)
        chosen = module._reader.logits(noisy).argmax(dim=1)
        votes[torch.arange(64), chosen] += 1
    top = votes.topk(2, dim=1).values
    clear = top[:, 0] > top[:, 1]

    decided = smoothed.predict(samples).decisions
    assert bool(clear.any())
    assert torch.equal(decided[clear], votes.argmax(dim=1)[clear])


def test_an_answer_hangs_on_its_own_image_alone():
    smoothed, samples = RandomisedSmoothing(samples=5).protect(probe()), batch(8)
    whole = smoothed.predict(samples).logits
    for i in range(3):
        alone = given(samples.images[i : i + 1], samples.references[i : i + 1])
        assert torch.allclose(smoothed.predict(alone).logits[0], whole[i], atol=1e-5)
    assert torch.equal(smoothed.predict(samples).logits, whole)


def test_certificates_hang_on_the_sample_alone():
    target, samples, _ = linear()
    plan = Plan(0.5, 10, 50, 0.99, 0.75, "holm")
    whole = prove(target, samples, plan, SEEDS)
    last = Batch(
        samples.images[5:],
        samples.references[5:],
        samples.samples[5:],
        samples.cases[5:],
        samples.sites[5:],
    )
    assert prove(target, last, plan, SEEDS)[0] == whole[5]


def test_gradients_are_those_of_the_mean_probability():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).double().eval()
    target = palpate.wrap(network, task=palpate.Classification(("a", "b", "c")))
    module = RandomisedSmoothing(sigma=0.3, samples=4).protect(target).module.double()
    images = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(module, images, atol=1e-5)


def test_an_adaptive_attack_breaks_what_is_not_certified():
    target, samples, exact = linear()
    smoothed = RandomisedSmoothing(sigma=0.3, samples=16).protect(target)
    beyond = float(exact.max()) * 1.6

    attack = Pgd(norm="l2", epsilon=beyond, steps=20)
    moved = attack(smoothed, samples.images, samples.references)
    broken = smoothed.predict(samples.with_images(moved)).decisions != samples.references

    assert float(broken.float().mean()) > 0.8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected more than 0"),
        ({"samples": 0}, "1 or more"),
        ({"confidence": 1.0}, r"in \[0.5, 1\)"),
        ({"threshold": 0.4}, r"in \[0.5, 1\)"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        RandomisedSmoothing(**wrong)
