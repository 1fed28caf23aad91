import pytest
import torch

from palpate.attacks._gradient import Search
from palpate.attacks.nes import Nes
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, constant, linear
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.perturbation import generators
from palpate.scoring import scores
from palpate.types import Prediction


def right(target, images, references):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), references)


def test_the_estimate_is_the_gradient_of_a_linear_model():
    """E[(J(x + σu) − J(x − σu)) · 2σu] = 4 σ² ∇J; the cosine grows with the share of draws."""
    target, given = linear(), batch(4, classes=2, margin=0.3)
    labels = target.logits(given.images).argmax(1)
    weight = target.module.get_parameter("weight").detach().flatten()
    attack = Nes(epsilon=0.2, samples=1000, queries=1000, spread=0.01, loss="margin")
    search = Search(target, given.images, labels, attack.objective)

    found = attack._estimate(search, given.images, None, generators(range(4))).flatten(1)

    slope = torch.where(labels == 0, 1.0, -1.0).unsqueeze(1) * weight
    cosine = torch.cosine_similarity(found, slope)
    # 500 pairs in 128 dimensions: cos² ≈ n / (n + d)
    assert cosine.min() > 0.8
    scale = (found * slope).sum(1) / (500 * 4 * 0.01**2 * weight.square().sum())
    assert torch.allclose(scale, torch.ones(4), atol=0.25)


def test_weaker_than_the_white_box_and_stronger_than_nothing(few):
    target, images, labels = few
    clean = right(target, images, labels).mean()
    blind = right(target, Nes(epsilon=0.05, queries=105)(target, images, labels), labels).mean()
    seeing = right(target, Pgd(epsilon=0.05, steps=5)(target, images, labels), labels).mean()

    assert seeing <= blind < clean


def test_queries_are_kept_and_who_is_broken_asks_no_more():
    target, given = linear(), batch(8, classes=2, margin=0.2)
    found = Nes(epsilon=0.2, queries=300).search(target, given.images, given.references)

    assert float(right(target, found.images, given.references).max()) == 0
    assert found.passes < 8 * 150
    stuck = Nes(queries=100, samples=10).search(constant(), given.images[:2], torch.tensor([1, 1]))
    assert stuck.passes == 2 * (1 + 9 * 11)
    assert set(stuck.status) == {Status.NO_GRADIENT}


def test_masks(thresholds):
    target, images, masks = thresholds
    found = Nes(epsilon=0.3, queries=106)(target, images, masks)

    assert float(right(target, found, masks).max()) < float(right(target, images, masks).min())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 3}, "samples of 2 or more, even"),
        ({"spread": 0.0}, "a spread above 0"),
        ({"decay": 1.0}, "decay: expected 0 or more and less than 1, got 1.0"),
        ({"queries": 0}, "expected 1 or more, got 0"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Nes(**setting)
