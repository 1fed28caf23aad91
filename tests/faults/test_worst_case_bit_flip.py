import itertools
import json

import pytest
import torch
from torch import nn

from palpate.errors import ConfigError
from palpate.faults.base import fingerprint
from palpate.faults.worst_case_bit_flip import WorstCaseBitFlip
from palpate.scoring import scores


def worlds(fault, target, batch):
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        for trial in range(fault.repeats):
            with enter(seeds.at(trial)) as world:
                prediction = world.target.predict(world.batch)
                yield world.notes, prediction, float(scores(prediction, batch.references).mean())


def labelled(target, batch):
    """The golden decisions as references, so that every clean score is 1."""
    import dataclasses

    return dataclasses.replace(batch, references=target.predict(batch).decisions)


@pytest.fixture
def scene(nets, wrap):
    def make(name):
        target, batch = wrap(*nets(name))
        return target, labelled(target, batch)

    return make


def exhaustive(target, batch):
    """Largest silent drop of the score over every single bit of a small model."""
    worst = 0.0
    for tensor in target.module.parameters():
        bits = tensor.detach().view(torch.int32).view(-1)
        for element in range(len(bits)):
            for bit in range(32):
                mask = torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
                bits[element] ^= mask
                prediction = target.predict(batch)
                score = scores(prediction, batch.references)
                worst = max(worst, float(((1 - score) * prediction.finite).mean()))
                bits[element] ^= mask
    return worst


def test_finds_the_worst_single_bit_that_exhaustion_finds(wrap):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    target, batch = wrap(net, (24, 1, 2, 2), classes=3)
    batch = labelled(target, batch.with_images(torch.randn(24, 1, 2, 2)))
    [(notes, _, score)] = worlds(WorstCaseBitFlip(trials=1), target, batch)
    assert notes["damage"] == pytest.approx(1 - score)
    assert notes["damage"] == pytest.approx(exhaustive(target, batch))


@pytest.mark.parametrize("name", ["unet", "vit"])
def test_flips_accumulate_and_the_score_falls(name, scene):
    target, batch = scene(name)
    before = fingerprint(target.module)
    found = list(worlds(WorstCaseBitFlip(trials=3, candidates=20), target, batch))
    assert [notes["flips"] for notes, _, _ in found] == [1, 2, 3]
    for (early, _, _), (late, _, _) in itertools.pairwise(found):
        ours = [(s["tensor"], s["index"], s["bit"]) for s in early["sites"]]
        assert [(s["tensor"], s["index"], s["bit"]) for s in late["sites"]][: len(ours)] == ours
    assert found[0][2] < 1
    assert found[-1][2] <= found[0][2]
    assert json.loads(json.dumps(found[-1][0])) == found[-1][0]
    assert fingerprint(target.module) == before


def test_every_layer_has_its_worst_bit_the_worst_layer_first(scene):
    target, batch = scene("unet")
    found = list(worlds(WorstCaseBitFlip(trials=8, scope="layer"), target, batch))
    layers = [notes["stratum"] for notes, _, _ in found]
    assert len(set(layers)) == 8
    damages = [notes["damage"] for notes, _, _ in found]
    assert damages == sorted(damages, reverse=True)
    assert all(notes["sites"][0]["layer"] == notes["stratum"] for notes, _, _ in found)


def test_targeted_flips_send_decisions_to_the_class(scene):
    target, batch = scene("vit")
    for _, prediction, _ in worlds(WorstCaseBitFlip(trials=1, target_class=7), target, batch):
        assert prediction.decisions.tolist() == [7, 7, 7]


def test_integer_codes_are_searched_as_deployed(scene):
    target, batch = scene("two_encoders")
    fault = WorstCaseBitFlip(trials=2, format="int8", tensors=("head", "mix"))
    before = fingerprint(target.module)
    for notes, _, _ in worlds(fault, target, batch):
        assert notes["damage"] >= 0
    assert fingerprint(target.module) == before


def test_the_search_stops_at_its_goal(scene):
    target, batch = scene("unet")
    found = list(worlds(WorstCaseBitFlip(trials=4, stop=0.99, candidates=20), target, batch))
    assert [notes["flips"] for notes, _, _ in found] == [1, 1, 1, 1]
    assert found[0][2] <= 0.99


def test_wrong_settings_are_refused(scene):
    target, _ = scene("unet")
    with pytest.raises(ConfigError, match="expected at most 8 trials, the layers of model"):
        WorstCaseBitFlip(trials=9, scope="layer").check(target)
    with pytest.raises(ConfigError, match="expected target_class among 10 classes"):
        WorstCaseBitFlip(target_class=10).check(target)
    with pytest.raises(ConfigError, match="expected a source_class with stealth"):
        WorstCaseBitFlip(stealth=1.0)
