"""Steps in bfloat16: every success that is reported is one in float32."""

import dataclasses

import pytest
import torch
from torch import nn

import palpate
from palpate.attacks.apgd import Apgd
from palpate.attacks.bim import Bim
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch
from palpate.errors import ConfigError
from palpate.scoring import scores

BUDGET = {"epsilon": 4 / 255, "steps": 10, "precision": "bfloat16"}
ATTACKS = [
    Pgd(**BUDGET),
    Pgd(**BUDGET, restarts=2, stop_at_success=True),
    Apgd(**BUDGET, restarts=2),
    Apgd(**BUDGET, stop_at_success=True),
    Apgd(**BUDGET, loss="margin", targets=1),
    Bim(**BUDGET),
]


def judged(target, images, labels):
    return scores(target.predict(batch(len(images)).with_images(images)), labels)


def claimed(found):
    return torch.tensor([trace.claimed for trace in found.traces])


@pytest.fixture
def close():
    """Half a percent of a logit off the border: below what bfloat16 can tell from it."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    draw = torch.Generator().manual_seed(0)
    images = torch.rand((64, 1, 8, 8), generator=draw)
    with torch.no_grad():
        module[1].weight.copy_(torch.randn((2, 64), generator=draw))
        module[1].bias.zero_()
    target = palpate.wrap(module, task=palpate.Classification(("a", "b")))
    weight = module[1].weight.detach()
    way = (weight[1] - weight[0]).reshape(1, 1, 8, 8)
    gap = (images * way).sum(dim=(1, 2, 3)) - 0.005
    images = images - gap.reshape(-1, 1, 1, 1) * way / (way * way).sum()
    bounded = palpate.wrap(module, task=target.task, bounds=(-2.0, 3.0))
    return bounded, images, torch.ones(64, dtype=torch.long)


@pytest.mark.parametrize("attack", [Pgd, Apgd])
@pytest.mark.parametrize("stop", [False, True])
def test_what_only_bfloat16_calls_broken_is_not_reported(close, attack, stop):
    target, images, labels = close
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        mistaken = target.logits(images).argmax(1) != labels
    assert int(mistaken.sum()) > 3
    assert bool((target.logits(images).argmax(1) == labels).all())

    tiny = attack(epsilon=1e-6, steps=4, precision="bfloat16", stop_at_success=stop)
    found = tiny.search(target, images, labels)

    assert claimed(found).tolist() == [1.0] * 64
    assert judged(target, found.images, labels).tolist() == [1.0] * 64


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_claims_are_what_float32_measures_and_hardly_weaker(few, attack):
    target, images, labels = few
    found = attack.search(target, images, labels)
    exact = dataclasses.replace(attack, precision="float32").search(target, images, labels)

    measured = judged(target, found.images, labels)
    assert torch.equal(claimed(found), measured)
    robust, expected = measured.sum(), judged(target, exact.images, labels).sum()
    assert 0 < float(expected) < len(labels)
    assert float(robust - expected) <= 1
    assert float((found.images - images).abs().max()) <= attack.epsilon + 1e-6


def test_gradients_are_in_bfloat16_and_cost_two_more_passes(few):
    target, images, labels = few
    seen = []
    first = next(m for m in target.module.modules() if isinstance(m, nn.Conv2d))
    hook = first.register_forward_hook(lambda module, given, out: seen.append(out.dtype))

    found = Pgd(**BUDGET).search(target, images, labels)
    hook.remove()

    assert seen == [torch.bfloat16] * 10 + [torch.float32] * 2
    assert found.passes <= 12 * len(images)


def test_one_precision_at_a_time():
    with pytest.raises(ConfigError, match="precision: expected 'float32' for eot 4"):
        Pgd(precision="bfloat16", eot=4)
