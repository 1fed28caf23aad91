"""A target without gradients: who is refused, what is offered instead, who runs."""

import dataclasses

import pytest
import torch

import palpate
from palpate import registry
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, probe
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import CapabilityError
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.targets.base import Target


@dataclasses.dataclass(frozen=True)
class Sealed(Target):
    """As a network behind a service is: it answers and nothing else."""

    @property
    def offers(self):
        return frozenset()


def sealed(target):
    return Sealed(target.module, target.task, target.bounds, target.mean, target.std, name="sealed")


def test_the_searches_without_gradients_are_named():
    with pytest.raises(CapabilityError) as raised:
        Pgd().check(sealed(probe()))

    said, _, offered = str(raised.value).partition("; attacks that do without gradients: ")
    assert said == "pgd: expected a target with gradients, got sealed with neither"
    expected = [
        name for name in registry.names("attacks") if not registry.load("attacks", name).needs
    ]
    assert offered.split(", ") == expected
    assert {"square", "nes", "simba", "hop_skip_jump", "transfer"} <= set(expected)
    assert "pgd" not in expected


def test_faults_are_offered_too():
    with pytest.raises(CapabilityError, match="faults that do without weights: input_bit_flip"):
        WeightBitFlip().check(sealed(probe()))


def test_an_audit_refuses_at_planning_and_runs_the_rest(tmp_path):
    samples = palpate.load_dataset("medmnist", limit=4)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2)).eval()
    target = sealed(palpate.wrap(module, task=samples.task))
    blind = [{"name": name, "queries": 20} for name in ("square", "nes", "simba", "hop_skip_jump")]

    run = palpate.audit(target, samples, ["pgd", *blind], store=tmp_path / "run")

    (refused,) = run.record.manifest["not_testable"]
    assert refused["perturbation"] == "pgd"
    assert "do without gradients: " in refused["reason"]
    ran = {cell.perturbation: cell.status for cell in run.record.cells}
    assert {ran[spec["name"]] for spec in blind} == {"ok"}


BLIND = {"queries": 30}


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("square", BLIND),
        ("nes", {**BLIND, "samples": 6}),
        ("simba", BLIND),
        ("random_search", BLIND),
        ("transfer", {"attack": {"name": "pgd", "steps": 3}}),
    ],
)
def test_several_labels_and_prompts_are_served(name, setting):
    attack = registry.create("attacks", name, {"epsilon": 0.2, **setting})
    given = batch(3)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 4)).eval()
    several = palpate.wrap(module, task=palpate.MultiLabel(("a", "b", "c", "d")))
    labels = (several.logits(given.images) > 0).long().detach()
    found = attack(several, given.images, labels)
    decided = (several.logits(found) > 0).long()
    assert (decided == labels).float().mean() < 1

    asked = with_questions(given)
    target = prompted()
    moved = attack(target, asked.images, asked.references, prompts=asked.prompts)
    assert 0 < float((moved - asked.images).abs().max()) <= 0.2 + 1e-6
