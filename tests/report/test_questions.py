import dataclasses

import pytest

from palpate.outcome import Verdict
from palpate.report.questions import questions
from palpate.statistics.paired import paired
from palpate.statistics.summary import summarise

PGD = {"epsilon": 1 / 255, "norm": "linf", "steps": 20}


def asked(record):
    found = questions(record, summarise(record), paired(record))
    return {q.text.split("?")[0]: q.answers for q in found}


def answer(record, start):
    (found,) = [a for text, answers in asked(record).items() for a in answers if start in text]
    return found


def clean(maker, target="mamba"):
    maker.cell(target, outcomes=[maker.outcome(i, right=True) for i in range(40)])


@pytest.mark.parametrize(("right", "verdict"), [(0, "yes"), (2, "cannot tell"), (20, "no")])
def test_near_zero_is_judged_by_the_whole_interval(maker, right, verdict):
    clean(maker)
    rows = [maker.outcome(i, right=i < right, linf=0.003) for i in range(40)]
    maker.cell("mamba", "attacks", "pgd", setting=PGD, outcomes=rows)
    found = answer(maker.write(), "near zero")
    assert found.verdict == verdict
    assert "at 1/255" in found.text


def flips(maker, fate, *, group, count=40):
    """Single flips of top exponent bits, half in the stem or scan and half in the head."""
    clean(maker)
    names = [group, "head"]
    notes = [
        {
            "stratum": names[t % 2],
            "share": 0.5,
            "flips": 1,
            "sites": [
                {
                    "tensor": f"{names[t % 2]}.weight",
                    "layer": names[t % 2],
                    "group": names[t % 2],
                    "part": "top exponent bit",
                    "bit": 30,
                }
            ],
        }
        for t in range(count)
    ]
    notes[0]["population"] = [
        {
            "tensor": f"{n}.weight",
            "layer": n,
            "group": n,
            "elements": 10,
            "bits": 320,
            "parts": {"top exponent bit": 10},
        }
        for n in names
    ]
    rows = [fate(t, i) for t in range(count) for i in range(40)]
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting={"flips": 1, "scope": "group_field"},
        trials=count,
        outcomes=rows,
        notes=notes,
    )
    return maker.write()


def test_lost_outputs_bring_a_model_to_chance(maker):
    def fate(t, i):
        return maker.lost(i, trial=t) if t == 6 else maker.outcome(i, right=True, trial=t)

    found = answer(flips(maker, fate, group="stem"), "bring it to chance")
    assert found.verdict == "yes"
    assert found.text.startswith("1 of 40 flips drawn; ")
    assert found.text.endswith("in stem.weight")


def test_nothing_seen_is_no_proof(maker):
    def fate(t, i):
        return maker.outcome(i, right=True, trial=t)

    found = answer(flips(maker, fate, group="stem"), "bring it to chance")
    assert found.verdict == "not seen"


@pytest.mark.parametrize("fragile", ["scan", "head"])
def test_fragile_parts(maker, fragile):
    """Stem, scan and head; the fragile one loses everything, the others nothing."""
    clean(maker)
    groups = ["stem", "x_proj", "head"]
    hit = {"scan": ("stem", "x_proj"), "head": ("head",)}[fragile]
    notes, rows = [], []
    for t in range(90):
        group = groups[t % 3]
        site = {"tensor": group, "layer": group, "group": group, "part": "sign", "bit": 31}
        notes.append({"stratum": group, "share": 1 / 3, "flips": 1, "sites": [site]})
        for i in range(40):
            bad = group in hit
            verdict = Verdict.SDC if bad else Verdict.MASKED
            rows.append(maker.outcome(i, right=not bad, trial=t, verdict=verdict))
    notes[0]["population"] = [
        {
            "tensor": g,
            "layer": g,
            "group": g,
            "elements": 10,
            "bits": 320,
            "parts": {"sign": 10},
        }
        for g in groups
    ]
    setting = {"flips": 1, "scope": "group_field"}
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting=setting,
        trials=90,
        outcomes=rows,
        notes=notes,
    )
    found = answer(maker.write(), "most fragile")
    assert found.verdict == {"scan": "yes", "head": "no"}[fragile]
    assert "per parameter" in found.text


def test_models_are_compared_on_the_same_images(rich):
    (found,) = asked(rich)["Which model is better, on the same images"]
    assert found.who in ("mamba minus resnet", "resnet minus mamba")
    assert "after Holm's correction" in found.text


def test_an_audit_without_the_data_asks_nothing(maker):
    clean(maker)
    assert asked(maker.write()) == {}


@pytest.mark.parametrize("constant", [True, False])
def test_giving_everyone_one_answer_wins_nothing(maker, constant):
    clean(maker, "mamba")
    clean(maker, "resnet")
    setting = {"severity": 5, "trials": 1}
    few = [maker.outcome(i, right=i < 4) for i in range(40)]
    right = [maker.reference(i) == 1 if constant else i >= 4 for i in range(40)]
    many = [maker.outcome(i, right=right[i]) for i in range(40)]
    maker.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=few)
    maker.cell("resnet", "corruptions", "gaussian_noise", setting=setting, outcomes=many)
    found = answer(maker.write(), "Which model is better")
    assert found.verdict == ("cannot tell" if constant else "resnet")
    assert ("which is no merit" in found.text) == constant


@pytest.mark.parametrize(("kept", "verdict"), [(40, "resnet"), (20, "it depends")])
def test_a_model_that_is_worse_when_clean_is_not_simply_the_better_one(maker, kept, verdict):
    clean(maker, "mamba")
    maker.cell("resnet", outcomes=[maker.outcome(i, right=i < kept) for i in range(40)])
    setting = {"epsilon": 0.01, "norm": "linf"}
    for target, first in (("mamba", 30), ("resnet", 0)):
        rows = [maker.outcome(i, right=first <= i < 40) for i in range(40)]
        maker.cell(target, "attacks", "fgsm", setting=setting, outcomes=rows)
    assert answer(maker.write(), "Which model is better").verdict == verdict


def test_activations_say_nothing_of_the_memory(maker):
    def fate(t, i):
        return maker.lost(i, trial=t) if t < 20 else maker.outcome(i, right=True, trial=t)

    record = flips(maker, fate, group="stem")
    cells = tuple(
        dataclasses.replace(c, perturbation="activation_bit_flip") if c.family == "faults" else c
        for c in record.cells
    )
    assert not any("chance" in text for text in asked(dataclasses.replace(record, cells=cells)))


def test_faults_without_a_clean_result_bring_nothing_to_chance(maker):
    flips(maker, lambda t, i: maker.lost(i, trial=t), group="stem")
    (maker.folder / "cells" / f"{maker.plan[0]['key']}.json").unlink()
    assert not [q for q in asked(maker.write()) if q.startswith("Can one flip")]


def test_a_mean_that_the_cases_gainsay_makes_no_model_better(synthetic, tmp_path):
    """Most images are a little better with one model, and the mean is with the other."""
    maker = synthetic.Maker(tmp_path, cases=60, kind="segmentation", positive=None)
    for target, scores in (("mamba", [0.82] * 45 + [0.2] * 15), ("resnet", [0.8] * 60)):
        rows = [
            dataclasses.replace(maker.outcome(i, right=True), score=s, reference=(), decision=())
            for i, s in enumerate(scores)
        ]
        maker.cell(target, outcomes=rows)
        maker.cell(target, "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)
    found = answer(maker.write(), "Which model is better")
    assert found.verdict == "cannot tell"
