"""Channels innermost: the same weights and answers, laid out for faster convolutions."""

from importlib import resources

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.attacks.pgd import Pgd
from palpate.evaluation import evaluate
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.targets._laid_out import laid_out


@pytest.fixture(scope="module")
def pair():
    weights = resources.files("palpate") / "data" / "resnet18_breastmnist.safetensors"
    samples = registry.create("datasets", "medmnist", {}).load(8)
    given = {
        "small_stem": True,
        "arguments": {"channels": [16, 32, 64, 128]},
        "weights": str(weights),
    }
    plain, laid = (
        registry.create("targets", "timm", {**given, "channels_last": wanted}).load(
            task=samples.task, channels=1, bounds=samples.bounds
        )
        for wanted in (False, True)
    )
    return plain, laid, samples.batch(range(8))


def test_weights_lie_otherwise_and_hold_the_same(pair):
    plain, laid, _ = pair
    format_ = torch.channels_last
    convolutions = [p for p in laid.module.parameters() if p.ndim == 4 and p.shape[2] > 1]

    assert all(p.is_contiguous(memory_format=format_) for p in convolutions)
    assert laid.digest() == plain.digest()


def test_answers_and_attacks_stay_the_same_up_to_rounding(pair):
    plain, laid, given = pair
    logits = [target.predict(given).logits for target in (plain, laid)]
    moved = [Pgd(steps=5)(target, given.images, given.references) for target in (plain, laid)]

    assert torch.allclose(*logits, rtol=1e-5, atol=1e-5)
    assert float((moved[0] != moved[1]).float().mean()) < 0.01


def test_faults_hit_the_same_bits(pair):
    plain, laid, given = pair
    found = [
        evaluate(target, [given], perturbation=WeightBitFlip(trials=4)) for target in (plain, laid)
    ]

    assert found[0].notes == found[1].notes
    assert laid.digest() == plain.digest()


def test_volumes_are_laid_out_too():
    module = laid_out(nn.Sequential(nn.Conv3d(2, 4, 3), nn.Linear(3, 3)), channels_last=True)

    assert module[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not module[0].weight.is_contiguous()
    assert laid_out(nn.Conv2d(2, 4, 3), channels_last=False).weight.is_contiguous()
