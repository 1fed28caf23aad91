"""Cells that share what a target said before: the same records for fewer passes."""

import dataclasses

import pytest
import torch
from torch import nn

import palpate
from palpate import config
from palpate.attacks.fgsm import Fgsm
from palpate.campaign.drive import drive
from palpate.campaign.plan import resolve
from palpate.contracts.oracles import batch, probe
from palpate.evaluation import evaluate
from palpate.targets import _memo
from palpate.targets._memo import Memo

SWEEP = ("probes=false", "perturbations.0.epsilon=[1/255,2/255,4/255,8/255]")
EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


class Counting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.forward_passes, self.gradients = inner, 0, 0

    def forward(self, images):
        self.forward_passes += 1
        self.gradients += images.requires_grad
        return self.inner(images)


def counted(memo):
    target = probe()
    module = Counting(target.module).eval()
    return dataclasses.replace(target, module=module, memo=memo), module


def swept(target, **options):
    attacks = [Fgsm(epsilon=e, **options) for e in EPSILONS]
    # as text, in which NaN equals NaN and every digit shows
    return repr([evaluate(target, [batch(4)], perturbation=a).outcomes for a in attacks])


@pytest.mark.parametrize(
    "options", [{}, {"norm": "l2"}, {"label": "prediction"}, {"update": "blend"}, {"eot": 2}]
)
def test_a_sweep_takes_one_gradient_and_gives_the_same_numbers(options):
    apart, everything = counted(None)
    together, shared = counted(Memo(steady=True))

    assert swept(together, **options) == swept(apart, **options)
    assert shared.gradients * len(EPSILONS) == everything.gradients
    assert shared.forward_passes < 0.75 * everything.forward_passes


def test_another_loss_or_label_is_another_gradient():
    target, module = counted(Memo(steady=True))
    for options in ({}, {"loss": "margin"}, {"label": "prediction"}, {"norm": "l2"}):
        swept(target, **options)

    assert module.gradients == 4


def test_records_of_an_audit_are_the_same_bit_for_bit(audit_file, tmp_path, monkeypatch):
    def run(folder):
        drive(resolve(config.load(audit_file, SWEEP), audit_file.parent, 12), folder)
        files = [p for kind in ("cells", "samples") for p in (folder / kind).glob("*")]
        return {p.name: p.read_bytes() for p in files}

    shared = run(tmp_path / "shared")
    monkeypatch.setattr("palpate.campaign.worker.Memo", lambda: Memo(limit=0))

    assert shared == run(tmp_path / "apart")
    assert _memo.LIMIT > 0


def test_a_random_target_is_asked_every_time():
    class Random(nn.Module):
        def forward(self, images):
            return probe().module(images) + torch.rand(len(images), 3)

    target = palpate.wrap(Random().eval(), task=probe().task)
    target = dataclasses.replace(target, memo=Memo())

    answers = {evaluate(target, [batch(3)]).outcomes[0].probabilities for _ in range(4)}

    assert target.memo.steady is False
    assert target.memo.held == 0
    assert len(answers) == 4


def test_no_more_is_held_than_allowed():
    memo, asked = Memo(limit=40, steady=True), []

    def ask(number):
        asked.append(number)
        return (torch.full((4,), float(number)),)

    for number in (1, 2, 3, 1, 2, 3):
        assert float(memo.recall(number, lambda n=number: ask(n))[0][0]) == number

    assert memo.held == 32
    assert asked == [1, 2, 3, 3]


def test_the_first_repeat_is_asked_twice_and_nan_counts_as_equal():
    memo, asked = Memo(), []

    def ask():
        asked.append(1)
        return (torch.tensor([torch.nan, 1.0]),)

    for _ in range(4):
        memo.recall("same", ask)

    assert memo.steady is True
    assert len(asked) == 2


def test_another_module_starts_without_memories():
    target = dataclasses.replace(probe(), memo=Memo())

    assert target.with_module(nn.Identity()).memo is None
