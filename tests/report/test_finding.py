"""What the verdict says of records that a hurried reader would misread."""

import dataclasses

import pytest

from palpate.outcome import Status, Verdict
from palpate.regions import Region
from palpate.report.finding import chance_level, classes_present
from palpate.report.headline import Evidence, verdict
from palpate.report.ladders import ladders
from palpate.statistics.checks import checks
from palpate.statistics.paired import paired
from palpate.statistics.strata import worst_faults
from palpate.statistics.summary import summarise

ATTACK = {"epsilon": 0.01, "norm": "linf"}
BOOM = {"type": "RuntimeError", "message": "boom", "traceback": ""}
SITE = {"tensor": "w", "layer": "l", "index": [0], "bit": 3, "before": 1.0, "after": 2.0}


def found(record):
    """The verdict, and per family the line about the only model."""
    summary = summarise(record)
    kind = record.manifest["dataset"]["task"]["kind"]
    rest = checks(record), ladders(summary, kind), paired(record), worst_faults(record)
    whole = verdict(Evidence(record, summary, *rest))
    lines = {line.family: line for _, _, lines in whole.models for line in lines}
    return whole, lines


@pytest.fixture
def make(synthetic, tmp_path):
    return lambda cases, **options: synthetic.Maker(
        tmp_path, cases=cases, targets=("mamba",), **options
    )


def rows(maker, right, **changes):
    """One outcome per sample, right where the function says so."""
    return [maker.outcome(i, right=right(i), **changes) for i in range(len(maker.names))]


def faults(maker, flips, right, sdc):
    """Three draws of so many flips; `right` and `sdc` are asked for trial and sample."""
    notes = [
        {
            "scope": "model",
            "stratum": "model",
            "share": 1.0,
            "flips": flips,
            "sites": [SITE] * flips,
        }
        for _ in range(3)
    ]
    count = range(len(maker.names))
    outcomes = [
        maker.outcome(
            i,
            right=right(t, i),
            trial=t,
            verdict=Verdict.SDC if sdc(t, i) else Verdict.MASKED,
        )
        for t in range(3)
        for i in count
    ]
    setting = {"flips": flips, "trials": 3}
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting=setting,
        trials=3,
        notes=notes,
        outcomes=outcomes,
    )


def masks(maker, scores, **changes):
    """Outcomes of one class whose Dice are these."""
    return [
        dataclasses.replace(
            maker.outcome(i, right=True, **changes),
            reference=(),
            decision=(),
            probabilities=(),
            score=score,
            last_score=score,
            regions=(Region(round(50 * score), 50, 50, 1.0, 1.0, 1, 1),),
            pixels=784,
        )
        for i, score in enumerate(scores)
    ]


def test_more_cases_that_gain_do_not_make_a_loss_sure(make):
    """The sign test is sure, of the gains; the mean falls through a few bad losses."""
    maker = make(60, kind="segmentation", classes=("background", "lesion"), positive=None)
    maker.cell("mamba", outcomes=masks(maker, [0.8] * 60))
    worse = masks(maker, [0.82] * 45 + [0.2] * 15, l2=1.0)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=worse)
    record = maker.write()
    [row] = paired(record).find(kind="disturbance")
    assert row.high < 0
    assert row.p_holm < 0.05
    assert row.gains > row.losses
    assert found(record)[1]["Corruptions"].finding == "may weaken"


def test_few_cases_show_neither_loss_nor_none(make):
    maker = make(1)
    maker.cell("mamba", outcomes=rows(maker, lambda i: True))
    maker.cell("mamba", "attacks", "fgsm", setting=ATTACK, outcomes=rows(maker, lambda i: False))
    whole, lines = found(maker.write())
    assert lines["Attacks"].finding == "cannot judge"
    assert whole.verdict == "Attacks could not be judged."


def test_samples_that_an_attack_could_not_act_on_hide_no_loss(make):
    maker = make(40)
    clean = rows(maker, lambda i: i < 36)
    maker.cell("mamba", outcomes=clean)
    stuck = [
        dataclasses.replace(row, status=Status.NO_GRADIENT) if i < 16 else row
        for i, row in enumerate(clean)
    ]
    maker.cell("mamba", "attacks", "fgsm", setting=ATTACK, outcomes=stuck)
    line = found(maker.write())[1]["Attacks"]
    assert line.finding == "cannot judge"
    assert "50.0\u00a0% [35.2, 64.8] right" in line.text
    assert line.text.endswith("no gradient or no movement in 16 of 40 tries")


def test_one_class_alone_has_no_chance_level(make):
    """Always giving that class would be perfect, so nothing could be better."""
    maker = make(40)
    maker.reference = lambda i: 1
    maker.cell("mamba", outcomes=rows(maker, lambda i: True))
    lost = rows(maker, lambda i: i < 26, l2=1.0)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=lost)
    record = maker.write()
    whole, lines = found(record)
    assert chance_level(record) is None
    assert classes_present(record) == 1
    assert lines["Corruptions"].finding == "weakens"  # 65 %, more than half of what was right
    assert "one answer" not in lines["Corruptions"].text
    assert whole.failed == ()
    [check] = checks(record).find(check="clean accuracy above chance")
    assert (check.status, "one class alone" in check.evidence) == ("warn", True)


def test_failed_cells_are_counted_beside_the_number_of_the_others(make):
    maker = make(40)
    clean = rows(maker, lambda i: i < 36, l2=1.0)
    maker.cell("mamba", outcomes=clean)
    maker.cell("mamba", "attacks", "fgsm", setting=ATTACK, outcomes=clean)
    maker.cell("mamba", "attacks", "pgd", setting=ATTACK, error=BOOM)
    maker.cell("mamba", "attacks", "bim", setting=ATTACK, written=False)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, error=BOOM)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 2}, outcomes=clean)
    lines = found(maker.write())[1]
    assert lines["Attacks"].text.endswith("; 2 of 3 cells without a result")
    assert lines["Corruptions"].text.endswith("; 1 of 2 cells without a result")


def test_without_a_clean_result_there_is_nothing_to_fall_from(make):
    maker = make(40)
    maker.cell("mamba", error=BOOM)
    moved = rows(maker, lambda i: i < 20, l2=1.0)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=moved)
    line = found(maker.write())[1]["Corruptions"]
    assert line.finding == "could not test"
    assert "clean" not in line.text


def test_a_fault_that_helps_weakens_nothing(make):
    maker = make(120)
    maker.cell("mamba", outcomes=rows(maker, lambda i: i < 110))
    faults(maker, 1, lambda t, i: i < 110 + t, lambda t, i: 110 <= i < 110 + t)
    line = found(maker.write())[1]["Faults"]
    assert line.finding == "no loss shown"
    assert line.text.endswith("; some faults changed decisions, none lowered the score")


def test_several_flips_are_not_called_a_single_fault(make):
    maker = make(120)
    maker.cell("mamba", outcomes=rows(maker, lambda i: i < 110))
    faults(maker, 4, lambda t, i: i < (10 if t == 1 else 110), lambda t, i: t == 1 and i > 9)
    line = found(maker.write())[1]["Faults"]
    assert line.finding == "can break"
    assert "the worst draw of 4 flips (w[0] bit 3 and 3 more) takes the score from" in line.text
    assert "single fault" not in line.text


def test_a_model_below_chance_is_not_broken_by_a_fault(make):
    maker = make(120)
    maker.cell("mamba", outcomes=rows(maker, lambda i: i < 80))  # most frequent answer: 90
    faults(maker, 1, lambda t, i: i < 80 - t, lambda t, i: 80 - t <= i < 80)
    assert found(maker.write())[1]["Faults"].finding == "weakens"


def test_what_could_not_be_judged_is_said_beside_what_could(make):
    maker = make(120)
    clean = rows(maker, lambda i: i < 110)
    maker.cell("mamba", outcomes=clean)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=clean)
    stuck = rows(maker, lambda i: i < 110, status=Status.NO_GRADIENT)
    maker.cell("mamba", "attacks", "fgsm", setting=ATTACK, outcomes=stuck)
    record = maker.write()
    whole, lines = found(record)
    assert lines["Attacks"].finding == "could not test"
    assert whole.failed  # so that the sentence speaks of it alone
    summary = summarise(record)
    none_failed = dataclasses.replace(checks(record), rows=())
    rest = ladders(summary, "classification"), paired(record), worst_faults(record)
    calm = verdict(Evidence(record, summary, none_failed, *rest))
    assert calm.verdict.startswith("No loss was shown")
    assert calm.verdict.endswith("Attacks gave no number.")


def test_one_answer_is_held_against_the_classes_that_are_there(make):
    """Of three classes two have samples, so one answer is right for half of them, not a third."""
    maker = make(60, classes=("a", "b", "c"), positive=None)
    maker.reference = lambda i: i % 2
    maker.cell("mamba", outcomes=rows(maker, lambda i: i < 55))
    moved = rows(maker, lambda i: i % 2 or i < 8, l2=1.0)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=moved)
    record = maker.write()
    assert classes_present(record) == 2
    line = found(record)[1]["Corruptions"]
    assert line.finding == "breaks"
    assert "always gives one answer: balanced accuracy 56.7" in line.text


@pytest.mark.parametrize(("names", "finding"), [(("fgsm", "pgd"), "breaks"), (("pgd",), "weakens")])
def test_attacks_that_break_different_samples_break_the_model_together(make, names, finding):
    maker = make(120)
    maker.cell("mamba", outcomes=rows(maker, lambda i: True))
    for name in names:
        half = ["fgsm", "pgd"].index(name)
        outcomes = rows(maker, lambda i, half=half: i % 5 != half, linf=0.01)
        maker.cell("mamba", "attacks", name, setting=ATTACK, outcomes=outcomes)
    _, lines = found(maker.write())

    assert lines["Attacks"].finding == finding
    assert ("each sample by its worst" in lines["Attacks"].text) == (len(names) > 1)


def test_losses_that_only_all_attacks_together_show_are_shown(make):
    """Each attack breaks three of forty, which may be none; all of them break nine."""
    maker = make(40)
    maker.cell("mamba", outcomes=rows(maker, lambda i: True))
    for turn, loss in enumerate(("ce", "margin", "dlr")):
        outcomes = rows(maker, lambda i, turn=turn: i // 3 != turn, linf=0.01)
        maker.cell("mamba", "attacks", "pgd", setting={**ATTACK, "loss": loss}, outcomes=outcomes)
    record = maker.write()
    line = found(record)[1]["Attacks"]

    assert all(row.high > 0 for row in paired(record).find(kind="disturbance"))
    assert "77.5\u00a0% [62.5, 87.7] right under all attacks" in line.text
    assert line.finding == "weakens"
