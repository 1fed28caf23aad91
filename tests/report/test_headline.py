import pytest

from palpate.report.headline import Evidence, chance_level, verdict
from palpate.report.ladders import ladders
from palpate.statistics.checks import checks
from palpate.statistics.paired import paired
from palpate.statistics.strata import worst_faults
from palpate.statistics.summary import summarise


def found(record):
    summary = summarise(record)
    kind = record.manifest["dataset"]["task"]["kind"]
    return verdict(
        Evidence(
            record,
            summary,
            checks(record),
            ladders(summary, kind),
            paired(record),
            worst_faults(record),
        )
    )


@pytest.mark.parametrize(
    ("kept", "finding"), [(0, "breaks"), (105, "weakens"), (120, "no loss shown")]
)
def test_findings(synthetic, tmp_path, kept, finding):
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(120)])
    rows = [maker.outcome(i, right=i < kept, l2=1.0) for i in range(120)]
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)
    result = found(maker.write())
    lines = {line.family: line for line in result.models[0][2]}
    assert lines["Corruptions"].finding == finding
    assert lines["Attacks"].finding == "not tested"
    assert "no proof" in result.verdict or finding != "no loss shown"


def test_of_equal_numbers_the_largest_dose_is_named(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    rows = [maker.outcome(i, right=True, l2=1.0) for i in range(120)]
    maker.cell("mamba", outcomes=rows)
    for severity in (1, 3, 5):
        setting = {"severity": severity}
        maker.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=rows)
    lines = {line.family: line for line in found(maker.write()).models[0][2]}
    assert "right under gaussian noise, severity 5, from" in lines["Corruptions"].text


def test_a_loss_that_the_correction_hides_is_still_named(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(120)])
    for severity in (1, 2, 3, 4, 5):
        rows = [maker.outcome(i, right=i < 113 or severity < 5, l2=severity) for i in range(120)]
        setting = {"severity": severity}
        maker.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=rows)
    result = found(maker.write())
    lines = {line.family: line for line in result.models[0][2]}
    assert lines["Corruptions"].finding == "may weaken"
    assert "pp [" in lines["Corruptions"].text
    assert "Weakened, or perhaps so, by corruptions" in result.verdict


def test_a_model_that_guesses_has_nothing_to_lose(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    rows = [maker.outcome(i, right=i % 3 > 0, l2=1.0) for i in range(120)]
    maker.cell("mamba", outcomes=rows)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)
    lines = {line.family: line for line in found(maker.write()).models[0][2]}
    assert lines["Corruptions"].finding == "cannot judge"


def test_a_failed_family_is_not_a_good_one(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    maker.cell("mamba", "occlusions", "patch_drop", setting={"coverage": 0.1}, written=False)
    result = found(maker.write())
    assert {x.family: x.finding for x in result.models[0][2]}["Occlusions"] == "could not test"
    assert result.failed


def test_a_verdict_with_failed_checks_speaks_of_them_alone(rich):
    assert "Broken by" in found(rich).verdict


def test_chance_is_the_most_frequent_reference(rich):
    assert chance_level(rich) == 0.75


def test_one_fault_that_breaks_a_model_is_not_hidden_by_the_mean(rich):
    result = found(rich)
    lines = {line.family: line for line in result.models[0][2]}
    assert lines["Faults"].finding == "can break"
    assert "of decisions silently changed" in lines["Faults"].text
    assert "Some of the faults drawn can break a model." in result.verdict


def test_a_model_that_gives_everyone_the_same_answer_is_broken_though_accuracy_stays(
    synthetic, tmp_path
):
    """A quarter of the images are of the other class: 73 % right, and not one of them found."""
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    rare = [i for i in range(120) if maker.reference(i) == 0]
    kept = [i for i in range(120) if i not in rare] + rare[: len(rare) // 3]
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in kept])
    blind = [maker.outcome(i, right=i not in rare, l2=1.0) for i in kept]
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 2}, outcomes=blind)

    lines = {line.family: line for line in found(maker.write()).models[0][2]}

    assert lines["Corruptions"].finding == "breaks"
    assert "from gaussian noise (severity 2) on" in lines["Corruptions"].text
    assert "always gives one answer: balanced accuracy 50.0" in lines["Corruptions"].text


def test_no_loss_is_no_finding_below_a_failed_check(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=120, targets=("mamba",))
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(120)])
    rows = [maker.outcome(i, right=True, linf=0.01, l2=1.0, rise=0.0) for i in range(120)]
    setting = {"epsilon": 0.01, "norm": "linf", "steps": 20}
    maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)

    result = found(maker.write())
    lines = {line.family: line for line in result.models[0][2]}

    assert lines["Attacks"].finding == "cannot judge"
    assert "the check 'the loss of the attack rises' failed" in lines["Attacks"].text
    assert lines["Corruptions"].finding == "no loss shown"
    assert "no evidence in either direction" in result.verdict
