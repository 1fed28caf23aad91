import pytest
import torch

from palpate.attacks._projection import size
from palpate.attacks.fab import Fab
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, linear
from palpate.errors import ConfigError


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()

    found = MinimalEpsilon(norm=norm)(target, given.images, logits.argmax(1))

    ratio = size(found - given.images, norm) / (logits[:, 1].abs() / dual)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


def test_one_run_gives_the_curve_of_pgd_not_far_behind_fab(few):
    """At any budget as many samples stand as PGD from the clean image leaves, give or take one."""
    target, images, labels = few
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    found = MinimalEpsilon(steps=8, searches=7)(target, images, labels)
    distance = size(found - images, "linf")

    for epsilon in (1 / 255, 4 / 255):
        pgd = Pgd(epsilon=epsilon, steps=8, random_start=False)(target, images, labels)
        stands = (target.logits(pgd).argmax(1) == labels).float().mean()
        curve = (distance > epsilon).float().mean()
        assert abs(float(curve - stands)) <= 1 / len(labels) + 1e-6
    fab = size(Fab(steps=8)(target, images, labels) - images, "linf")
    assert distance.median() < 1.3 * fab.median()


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="searches: expected 1 or more, got 0"):
        MinimalEpsilon(searches=0)
    assert torch.tensor(MinimalEpsilon().passes) == 610
