import pytest

from palpate.errors import ConfigError, UnknownComponent
from palpate.statistics.gates import SELF_CHECKS, judge, load_gates, parse_gates
from palpate.statistics.summary import summarise


def judged(record, *, self_checks=False, **gate):
    return judge(record, parse_gates({"gates": [gate], "self_checks": self_checks}))


def test_a_gate_looks_at_the_end_of_the_interval_and_not_at_the_value(rich):
    (row,) = list(summarise(rich).find(metric="accuracy", family="none", target="mamba"))
    where = {"metric": "accuracy", "perturbation": "none", "target": "mamba"}
    assert row.low < row.value < row.high

    for limit, passes in ((row.low - 0.01, True), (row.low, True), (row.value, False)):
        assert judged(rich, **where, at_least=limit).passed is passes
    for limit, passes in ((row.high + 0.001, True), (row.high, True), (row.value, False)):
        assert judged(rich, **where, at_most=limit).passed is passes
    assert not judged(rich, **where, at_least=row.low, at_most=row.value).passed


def test_evidence_has_the_numbers(rich):
    (row,) = judged(
        rich, metric="accuracy", perturbation="none", target="mamba", at_least=0.999
    ).rows
    assert row.gate == "accuracy clean (mamba) at least 0.999"
    assert row.cell == "mamba, clean"
    assert row.evidence.startswith(f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}], 40 rows")
    assert row.evidence.endswith(f"lower end {row.low:.4g} is below 0.999")


@pytest.mark.parametrize("epsilon", ["1/255", 1 / 255, "2 / 510"])
def test_where_takes_fractions(rich, epsilon):
    found = judged(
        rich, metric="accuracy", perturbation="pgd", where={"epsilon": epsilon}, at_least=0
    )
    assert [r.cell for r in found] == [
        "mamba, pgd, epsilon 1/255, norm linf",
        "resnet, pgd, epsilon 1/255, norm linf",
    ]
    assert "(epsilon 1/255)" in found.rows[0].gate


def test_where_may_hold_words_and_truth_values(rich):
    gate = {"metric": "accuracy", "perturbation": "pgd", "at_least": 0}

    assert len(judged(rich, **gate, where={"norm": "linf", "random_start": True})) == 8
    assert not judged(rich, **gate, where={"random_start": False}).passed
    assert not judged(rich, **gate, where={"restarts": True}).passed


def test_a_family_is_all_its_cells_and_all_attacks_is_the_worst_of_them(rich):
    family = judged(rich, metric="robust_accuracy", family="attacks", at_least=0)
    worst = judged(
        rich,
        metric="robust_accuracy",
        perturbation="all attacks",
        where={"epsilon": "4/255"},
        at_least=0,
    )
    assert len(family) == 16
    assert [r.cell for r in worst] == [
        f"{m}, all attacks, epsilon 4/255, norm linf" for m in ("mamba", "resnet")
    ]


def test_every_cell_that_matches_must_pass(rich):
    found = judged(rich, metric="accuracy", perturbation="pgd", at_least=0.3)

    assert {r.status for r in found} == {"pass", "fail"}
    assert not found.passed


@pytest.mark.parametrize(
    ("gate", "evidence"),
    [
        ({"perturbation": "bim"}, "the run has defocus_blur, fgsm, gaussian_noise"),
        ({"perturbation": "pgd", "target": "vim"}, "the run has target mamba, resnet"),
        ({"perturbation": "pgd", "defence": "input_filter"}, "the run has defence none"),
        (
            {"perturbation": "pgd", "where": {"epsilon": "3/255"}},
            "epsilon is 1/255, 2/255, 4/255, 8/255 in the run",
        ),
        ({"perturbation": "pgd", "where": {"severity": 1}}, "severity is no such parameter"),
        (
            {"perturbation": "weight_bit_flip", "metric": "auc"},
            "auc does not apply there",
        ),
        ({"perturbation": "pgd", "metric": "dice"}, "dice does not apply to this task"),
    ],
)
def test_a_gate_that_matched_no_cell_fails_and_says_what_there_is(rich, gate, evidence):
    found = judged(rich, **{"metric": "accuracy", "at_least": 0, **gate})

    (row,) = found.rows
    assert not found.passed
    assert row.evidence.startswith("matched no cell: ")
    assert evidence in row.evidence


def test_a_metric_that_the_audit_did_not_ask_for_is_measured(rich, maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    record = maker.write(config={"metrics": ["auc"], "statistics": {"confidence": 0.95}})

    assert judged(record, metric="specificity", perturbation="none", at_least=0.5).passed


def test_a_gate_may_be_on_a_metric_with_parameters_of_the_audit(maker):
    maker.kind = "segmentation"
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True, score=0.6) for i in range(40)])
    asked = [{"name": "dice_below", "bar": 0.7}]
    record = maker.write(config={"metrics": asked, "statistics": {"confidence": 0.95}})

    gate = {"perturbation": "none", "at_most": 0.2}
    assert judged(record, metric="dice_below", **gate).passed
    assert not judged(record, metric="dice_below[bar 0.7]", **gate).passed


def test_an_undefined_value_fails(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    stuck = [maker.outcome(i, right=True, status="no_gradient") for i in range(40)]
    maker.cell("mamba", "attacks", "pgd", setting={"epsilon": 0.1}, outcomes=stuck)

    (row,) = judged(maker.write(), metric="robust_accuracy", perturbation="pgd", at_least=0).rows

    assert (row.status, row.value) == ("fail", None)
    assert row.evidence == "undefined: could not attack"


@pytest.mark.parametrize("perturbation", ["pgd", "all attacks"])
@pytest.mark.parametrize("state", ["failed", "missing"])
def test_an_unfinished_cell_fails_its_gate_and_no_other(maker, state, perturbation):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=rows)
    error = {"type": "OSError", "message": "no"} if state == "failed" else None
    maker.cell(
        "mamba",
        "attacks",
        "pgd",
        setting={"epsilon": 0.1},
        outcomes=[] if error else rows,
        error=error,
        written=state == "failed",
    )
    record = maker.write()

    found = judged(record, metric="robust_accuracy", perturbation=perturbation, at_least=0)

    assert found.rows[0].evidence == "the cell has no result: it failed, or was not run"
    assert found.rows[0].cell == "mamba, pgd, epsilon 0.1"
    assert found.unfinished == ("mamba, pgd, epsilon 0.1",)
    assert not found.passed
    assert judged(record, metric="accuracy", perturbation="none", at_least=0).passed


def test_the_checks_of_the_audit_are_a_gate_unless_told_otherwise(maker):
    wrong = [maker.outcome(i, right=False) for i in range(40)]
    maker.cell("mamba", outcomes=wrong)
    record = maker.write()
    gate = {"metric": "accuracy", "perturbation": "none", "at_least": 0}

    found = judged(record, self_checks=True, **gate)

    assert [(r.gate, r.status) for r in found.rows[1:]] == [(SELF_CHECKS, "fail")]
    assert "clean accuracy above chance" in found.rows[1].evidence
    assert judged(record, **gate).passed


def test_checks_that_passed_are_said(rich):
    found = judged(rich, self_checks=True, metric="accuracy", perturbation="none", at_least=0)
    assert (found.rows[-1].gate, found.rows[-1].status) == (SELF_CHECKS, "pass")
    assert found.rows[-1].evidence.endswith(" checks")


GOOD = "gates:\n  - {metric: accuracy, perturbation: pgd, at_least: 1/2}\n"


def test_a_file_is_read(tmp_path):
    path = tmp_path / "gates.yaml"
    path.write_text(GOOD)

    (gate,) = load_gates(path).gates

    assert gate.at_least == 0.5
    assert gate.text == "accuracy under pgd at least 0.5"
    assert load_gates(path).self_checks


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gates:", "gate:", "gates.yaml: unknown key 'gate'; did you mean 'gates'"),
        ("metric:", "metrik:", "gates.yaml: gates.0: unknown key 'metrik'; did you mean 'metric'"),
        ("metric: accuracy, ", "", "gates.yaml: gates.0.metric: Field required"),
        ("at_least: 1/2", "at_leest: 1/2", "gates.0: unknown key 'at_leest'; did you mean"),
        ("1/2", "half", "gates.0.at_least: Input should be a valid number"),
        ("1/2", "true", "gates.0.at_least: expected a number, got True"),
        ("1/2", "1/0", "gates.0.at_least: expected a number or a fraction, got '1/0'"),
        ("1/2", ".nan", "gates.0.at_least: Input should be a finite number"),
        ("1/2", "50", "gates.0: expected a limit of at most 1, since accuracy is a share"),
        ("1/2", "1/2, at_most: 0.1", "gates.0: expected at_least <= at_most, got 0.5, 0.1"),
        (", at_least: 1/2", "", "gates.0: expected at_least or at_most"),
        (", perturbation: pgd", "", "gates.0: expected either a perturbation or a family"),
        ("pgd", "pgd, family: attacks", "gates.0: expected either a perturbation or a family"),
        ("perturbation: pgd", "family: attack", "gates.0.family: Input should be 'none'"),
        ("perturbation: pgd", "where: 3, perturbation: pgd", "gates.0.where: Input should be"),
        ("pgd", "pgd, where: {epsilon: 1/0}", "gates.0.where: expected a number or a fraction"),
        (GOOD, "gates: []", "gates.yaml: gates: Tuple should have at least 1 item"),
        (GOOD, "- accuracy", "gates.yaml: expected a mapping with 'gates', got list"),
        (GOOD, "gates: [", "gates.yaml: while parsing"),
        ("gates:", "schema_version: 2\ngates:", "gates.yaml: schema_version: Input should be 1"),
        ("pgd", "pgd, metric: auc", "key 'metric' given twice"),
    ],
)
def test_mistakes_in_the_file_are_one_line(tmp_path, old, new, message):
    path = tmp_path / "gates.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        load_gates(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read .*nowhere.yaml"):
        load_gates(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "acuracy"}, "no metric named 'acuracy'; did you mean 'accuracy'"),
        ({"perturbation": "pdg"}, "no perturbation named 'pdg'; did you mean"),
    ],
)
def test_names_that_nobody_knows_are_refused(rich, change, message):
    with pytest.raises(UnknownComponent, match=message):
        judged(rich, **{"metric": "accuracy", "perturbation": "pgd", "at_least": 0, **change})


def test_a_perturbation_of_a_plug_in_that_is_not_installed_here_is_known_from_the_run(maker):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    maker.cell("mamba", "corruptions", "lab/ring", setting={"severity": 1}, outcomes=rows)

    assert judged(maker.write(), metric="accuracy", perturbation="lab/ring", at_least=0.5).passed
