"""Attacks on targets that are random inside (`eot`)."""

import pytest
import torch

import palpate
from palpate.attacks._expectation import ExpectedSearch, _mean
from palpate.attacks.bim import Bim
from palpate.attacks.pgd import Pgd
from palpate.attacks.square import Square
from palpate.contracts.oracles import batch, linear, one, probe
from palpate.errors import ConfigError


class Shaken(torch.nn.Module):
    """A linear model whose weights are drowned in noise, new for each sample or for each pass."""

    def __init__(self, inner, *, level, each):
        super().__init__()
        self.inner = inner
        self.level = level
        self.each = each

    def forward(self, images):
        shape = images.shape if self.each else images.shape[1:]
        noise = self.level * torch.randn(shape)
        # the noise has no say at the middle of the range, so that the mean model is the inner one
        return self.inner(images) + ((images - 0.5) * noise).flatten(1).sum(1, keepdim=True)


def shaken(*, level=8.0, each=True):
    target = linear()
    return target.with_module(Shaken(target.module, level=level, each=each)), target


def progress(attack, target, mean, given, labels):
    """Share of the optimum by which the mean model's logit moved, per sample."""
    moved = attack(target, given.images, labels, seeds=range(len(given.images)))
    change = (mean.logits(moved) - mean.logits(given.images)).detach()[:, 1]
    weight = mean.module.get_parameter("weight").detach()
    return (1 - 2 * labels) * change / (attack.epsilon * weight.abs().sum())


@pytest.mark.parametrize("each", [True, False])
def test_the_mean_gradient_leads_where_one_draw_does_not(each):
    target, mean = shaken(each=each)
    given = batch(8, classes=2, margin=0.45)  # near the middle, where the noise does not saturate
    labels = mean.logits(given.images).argmax(1)
    plain = {"epsilon": 0.001, "steps": 1}

    torch.manual_seed(0)
    single = progress(Bim(**plain), target, mean, given, labels).mean()
    many = progress(Bim(**plain, eot=64), target, mean, given, labels).mean()

    assert single < 0.3
    assert many > 0.6


def test_a_batch_is_its_samples_and_nothing_is_left_behind():
    target, _ = shaken()
    given = batch(4, classes=2, margin=0.2)
    attack = Pgd(epsilon=0.01, steps=3, restarts=2, eot=4, stop_at_success=True)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()

    together = attack(target, given.images, given.references, seeds=[10, 11, 12, 13])

    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    for i in range(4):
        alone = one(given, i)
        found = attack(target, alone.images, alone.references, seeds=[10 + i])
        assert torch.allclose(found, together[i : i + 1], atol=1e-7)


def test_a_target_without_randomness_answers_as_ever():
    target, given = probe(), batch(4)
    plain = {"epsilon": 0.02, "steps": 4, "random_start": False}
    once = Pgd(**plain).search(target, given.images, given.references)
    often = Pgd(**plain, eot=3).search(target, given.images, given.references)

    # the sign of a gradient that is nearly 0 may turn with the rounding
    assert torch.isclose(once.images, often.images, atol=1e-5).float().mean() > 0.98
    assert often.passes == 3 * once.passes


def test_square_searches_on_the_mean():
    target, mean = shaken(level=0.5)
    given = batch(4, classes=2, margin=0.45)
    labels = mean.logits(given.images).argmax(1)

    reached = progress(Square(epsilon=0.005, queries=60, eot=32), target, mean, given, labels)

    assert reached.mean() > 0.1  # a random point of the ball reaches 0


def test_no_weaker_than_torchattacks_on_a_random_network(cheap):
    """Its EOTPGD averages the gradients of as many passes."""
    import torchattacks

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = cheap.target.module

        def forward(self, images):
            return self.inner(images + 0.15 * torch.randn_like(images))

    module = Noisy().eval()
    target = palpate.wrap(module, task=cheap.target.task)
    images, labels = cheap.images[:30], cheap.labels[:30]
    ours = Pgd(epsilon=4 / 255, steps=5, step_size=2 / 255, random_start=False, eot=8)
    peer = torchattacks.EOTPGD(module, eps=4 / 255, alpha=2 / 255, steps=5, eot_iter=8)
    torch.manual_seed(0)
    found, theirs = ours(target, images, labels), peer(images, labels)

    def right(moved):
        with torch.no_grad():
            return (
                torch.stack([module(moved).argmax(1) == labels for _ in range(40)]).float().mean()
            )

    assert right(found) < right(images) - 0.05
    assert right(found) <= right(theirs) + 0.01


def test_mean_probability_of_both_heads():
    logits = torch.randn((5, 3, 2, 2), generator=torch.Generator().manual_seed(0))

    softmax = _mean(logits, exclusive=True).softmax(1)
    assert torch.allclose(softmax, logits.softmax(1).mean(0, keepdim=True), atol=1e-6)
    sigmoid = _mean(logits, exclusive=False).sigmoid()
    assert torch.allclose(sigmoid, logits.sigmoid().mean(0, keepdim=True), atol=1e-6)


def test_a_part_goes_on_with_its_samples_draws():
    target, _ = shaken()
    given = batch(3, classes=2)
    search = ExpectedSearch(target, given.images, given.references, draws=2)
    search.begin([1, 2, 3])
    first = search.answer(given.images).detach()
    part = search.part(torch.tensor([1]))

    assert not torch.equal(part.answer(given.images[1:2]).detach(), first[1:2])
    assert [stream.used for stream in search.streams] == [1, 2, 1]


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="eot: expected 1 or more, got 0"):
        Pgd(eot=0)
