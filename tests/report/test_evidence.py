"""What a run is evidence for, and what it says nothing about."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from palpate import registry
from palpate.errors import ConfigError, UnknownComponent
from palpate.outcome import Status
from palpate.report import _mapping
from palpate.report.evidence import evidence
from palpate.report.page import render
from palpate.statistics import checks as audit_checks
from palpate.statistics.summary import summarise

HOSTILE = "<script>alert(1)</script>"
SMALL = """
schema_version: 1
reviewed: 2026-11-21
documents:
  - id: rule
    short: Rule
    title: A rule
    status: draft
    dated: 1 May 2026
    seen: 2026-11-21
    clauses:
      - clause: one
        asks: something
        evidence: [{shows: attacks, families: [attacks]}]
        not_covered: the rest
"""


def found(record, mapping=None):
    summary = summarise(record)
    checks = audit_checks.checks(record, summary=summary)
    return evidence(record, summary=summary, checks=checks, mapping=mapping)


def line(table, part, clause):
    lines = [x for p in table.parts if part in p.title for x in p.lines if clause in x.clause]
    assert len(lines) == 1
    return lines[0]


def clean(maker, **options):
    return maker.cell(
        "mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)], **options
    )


def cell(maker, family, name, setting, **options):
    rows = [
        maker.outcome(i, right=i > 9, trial=t, linf=0.01, l2=1.0)
        for t in range(options.get("trials", 1))
        for i in range(40)
    ]
    return maker.cell("mamba", family, name, setting=setting, outcomes=rows, **options)


def edited(**changes):
    """The small mapping with one part of its clause's evidence replaced."""
    data = yaml.safe_load(SMALL)
    data["documents"][0]["clauses"][0]["evidence"][0].update(changes)
    return data


class Words(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.texts = []
        self.feed(text)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def table(rich):
    return found(rich)


@pytest.fixture(scope="module")
def text(rich, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    return render(rich, path).read_text(encoding="utf-8")


# the file


def test_every_document_has_a_status_and_a_day_on_which_it_was_looked_up():
    documents = _mapping.bundled().documents
    assert {d.id for d in documents} >= {
        "iec_63450",
        "iso_24029_1",
        "iso_24029_2",
        "iso_24029_3",
        "mdr_annex_1",
        "eu_ai_act",
        "fda_ai_draft",
        "nist_ai_100_2",
        "mitre_atlas",
    }
    for document in documents:
        assert document.status
        assert document.seen.year == 2026
        assert document.status in document.state
        assert "dated" in document.state
    undated = {d.id for d in documents if d.dated is None}
    assert undated == {"iec_63450", "mdr_annex_1"}


def test_the_seven_threats_of_the_fda_draft_are_all_there():
    draft = next(d for d in _mapping.bundled().documents if d.id == "fda_ai_draft")
    assert [c.clause for c in draft.clauses if c.evidence] == ["model evasion", "performance drift"]
    assert len(draft.clauses) == 7


def test_names_in_the_file_exist():
    asked = [w for d in _mapping.bundled().documents for c in d.clauses for w in c.evidence]
    for wanted in asked:
        known = {
            name
            for family in wanted.families
            if family != "none"
            for name in registry.names(family)
        }
        assert set(wanted.names) <= known
        assert set(wanted.defences) <= set(registry.names("defences"))


def test_every_perturbation_is_asked_for():
    """By its name, where any of its family is; else with its family."""
    asked = [w for d in _mapping.bundled().documents for c in d.clauses for w in c.evidence]
    named = {(family, name) for w in asked for family in w.families for name in w.names}
    whole = {family for w in asked if not w.names for family in w.families}
    left = {
        f"{family}/{name}"
        for family in registry.PERTURBATIONS
        for name in registry.names(family)
        if (family, name) not in named and (family not in whole or family in {f for f, _ in named})
    }
    assert left == set(), "name it in evidence.yaml, or here with the reason why it fits no clause"


def test_proofs_by_sampling_count_in_part_and_behind_their_defence_only(maker):
    certified = [
        maker.outcome(i, right=True, certified=1.0, radius=0.2, abstained=0.0) for i in range(40)
    ]
    maker.cell("mamba", outcomes=certified)
    record = maker.write()
    assert line(found(record), "24029-2", "formal").shown == ()
    plan = [{**entry, "defence": "randomised_smoothing"} for entry in record.manifest["plan"]]
    table = found(type(record).load(maker.write(plan=plan).folder))
    assert line(table, "24029-2", "formal").shown[0].text.startswith("in part")


def test_checks_in_the_file_exist(rich):
    asked = {
        n
        for d in _mapping.bundled().documents
        for c in d.clauses
        for w in c.evidence
        for n in w.checks
    }
    assert asked
    assert asked <= {check.check for check in audit_checks.checks(rich)}


@pytest.mark.parametrize("word", ["compliant", "compliance", "certified", "conforms"])
def test_words_that_promise_too_much_never_appear(text, word):
    data = (Path(_mapping.__file__).parents[1] / "data" / "evidence.yaml").read_text()
    assert word not in data.lower().replace("certified_accuracy", "")  # a metric, not a claim
    assert word not in text.lower()


# the loader


def test_a_small_file_loads(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(SMALL)
    assert (
        _mapping.load(path).documents[0].state == "draft; dated 1 May 2026; looked up November 2026"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"familys": ["attacks"]}, r"evidence.0.familys: unknown key; did you mean 'families'"),
        (
            {"families": ["attack"]},
            r"families.0: Input should be 'none', 'attacks'.*, got 'attack'",
        ),
        ({"families": []}, "expected families, defended or checks, got none of them"),
        ({"checks": ["x"]}, "expected either checks or cells, got both"),
        ({"defences": ["x"]}, "expected defended: true beside defences"),
        ({"metrics": ["acuracy"]}, "no metric named 'acuracy'; did you mean 'accuracy'"),
        ({"shows": ""}, "shows: String should have at least 1 character, got ''"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _mapping.parse(edited(**change), where="rules.yaml")
    assert str(caught.value).startswith("rules.yaml: documents.0.clauses.0.evidence.0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["status", "seen", "dated", "title", "clauses"])
def test_a_document_without_its_status_or_date_is_refused(key):
    data = yaml.safe_load(SMALL)
    del data["documents"][0][key]
    with pytest.raises(ConfigError, match=rf"rules: documents.0.{key}: Field required"):
        _mapping.parse(data, where="rules")


def test_a_document_named_twice_is_refused():
    data = yaml.safe_load(SMALL)
    data["documents"] *= 2
    with pytest.raises(ConfigError, match="expected each id once, got 'rule' twice"):
        _mapping.parse(data)


def test_other_versions_and_unknown_keys_are_refused():
    data = yaml.safe_load(SMALL)
    with pytest.raises(ConfigError, match="schema_version: Input should be 1, got 2"):
        _mapping.parse({**data, "schema_version": 2})
    with pytest.raises(UnknownComponent, match="documnets: unknown key; did you mean 'documents'"):
        _mapping.parse({**data, "documnets": []})


def test_no_mapping_at_all(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        _mapping.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="evidence: Input should be a valid dictionary"):
        _mapping.parse([1])


# the run


def test_counts_are_those_of_the_run(table):
    evasion = line(table, "FDA", "model evasion")
    # 2 attacks at 4 epsilons on 2 models
    assert [s.measured for s in evasion.shown] == [
        "fgsm, pgd: 16 cells on 2 models, 40 samples each"
    ]
    single = line(table, "MDR", "single fault")
    assert single.shown[0].measured == (
        "weight bit flip: 2 cells on 2 models, 24 faults, 40 samples each"
    )
    assert single.absent == ("what a defence changes under single random faults",)
    assert table.doubts == ()


def test_what_no_audit_can_show_is_listed(table):
    covered = dict(table.not_covered)
    assert "data poisoning (not assessed)" in covered["FDA draft guidance, section XII"]
    assert "formal proof" in covered["ISO/IEC 24029-2"]
    assert "black box (attacks by queries alone: not run)" in covered["NIST AI 100-2"]
    assert line(table, "24029-2", "formal").shown == ()


def test_families_that_were_not_run_are_not_covered(maker):
    clean(maker)
    cell(maker, "corruptions", "gaussian_noise", {"severity": 1})
    table = found(maker.write())
    covered = dict(table.not_covered)
    for family in ("attacks", "occlusions", "faults"):
        assert covered[family] == "not part of this audit"
    assert "corruptions" not in covered
    assert line(table, "FDA", "model evasion").shown == ()
    assert line(table, "FDA", "model evasion").absent == ("attack success within a budget",)
    assert [s.measured for s in line(table, "FDA", "drift").shown] == [
        "gaussian noise: 1 cell on 1 model, 40 samples each"
    ]
    assert line(table, "AI Act", "adversarial").shown == ()


def test_a_component_that_the_file_does_not_know_counts_for_its_family(maker):
    clean(maker)
    setting = {"epsilon": 0.01, "norm": "linf"}
    cell(maker, "attacks", "vendor/secret", setting)
    cell(maker, "corruptions", "vendor/dirt", {})
    table = found(maker.write())
    assert "vendor/secret: 1 cell" in line(table, "FDA", "model evasion").shown[0].measured
    assert "vendor/dirt: 1 cell" in line(table, "IEC", "metamorphic").shown[0].measured
    assert line(table, "NIST", "white box").shown == ()
    assert "does not say what it supposes" in dict(table.not_covered)["vendor/secret"]
    assert "vendor/dirt" not in dict(table.not_covered)


def test_a_family_that_the_file_does_not_know_is_said(maker):
    clean(maker)
    cell(maker, "corruptions", "gaussian_noise", {"severity": 1})
    table = found(maker.write(), _mapping.parse(yaml.safe_load(SMALL)))
    assert dict(table.not_covered)["gaussian noise"].startswith("measured, but the mapping")


def test_an_attack_that_could_not_act_is_no_evidence(maker):
    clean(maker)
    stuck = [maker.outcome(i, right=True, status=Status.NO_GRADIENT) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": "linf"}
    maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=stuck)
    table = found(maker.write())
    assert line(table, "FDA", "model evasion").shown == ()
    assert dict(table.not_covered)["attacks"] == "planned, but no cell has a result that counts"
    assert "1 cell left out: the attack could not act" in table.doubts
    assert "1 check of the audit on itself failed" in table.doubts


def test_failed_and_missing_cells_are_no_evidence_and_cast_doubt(maker):
    clean(maker)
    error = {"type": "RuntimeError", "message": "boom", "traceback": ""}
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, error=error)
    maker.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, written=False)
    table = found(maker.write())
    assert line(table, "FDA", "model evasion").shown == ()
    assert "2 of 3 planned cells have no result" in table.doubts


def test_several_flips_are_no_single_fault(maker):
    clean(maker)
    for flips, rate in ((2, 0.0), (1, 1e-6)):
        setting = {"flips": flips, "bit_error_rate": rate, "trials": 3}
        cell(maker, "faults", "weight_bit_flip", setting, trials=3, notes=[{}] * 3)
    table = found(maker.write())
    assert line(table, "MDR", "single fault").shown == ()
    assert "2 cells" in line(table, "AI Act", "errors").shown[0].measured


def test_a_defence_is_found_by_its_name_with_and_without_settings(maker):
    clean(maker)
    record = maker.write()
    plan = record.manifest["plan"]
    for label in ("input_filter", "input_filter (kind median)"):
        protected = [{**entry, "defence": label} for entry in plan]
        table = found(type(record).load(maker.write(plan=protected).folder))
        shown = line(table, "ATLAS", "M0010").shown
        assert [s.measured for s in shown] == [
            f"clean behind {label.replace('_', ' ')}: 1 cell on 1 model, 40 samples each"
        ]
        assert line(table, "ATLAS", "M0006").shown == ()
    assert line(found(record), "ATLAS", "M0010").shown == ()


def test_checks_count_only_where_they_ran(table, maker):
    assert [s.measured for s in line(table, "AI Act", "adversarial").shown][1] == (
        "2 checks of 3 run; none failed"
    )
    clean(maker)
    assert line(found(maker.write()), "AI Act", "adversarial").shown == ()


def test_an_empty_run(maker):
    table = found(maker.write())
    assert not any(x.shown for part in table.parts for x in part.lines)
    assert dict(table.not_covered)["clean performance"] == "no clean cell has a result"


# the page


def test_the_page_has_the_table_with_status_and_date_and_the_list(text):
    section = re.search(r'<section aria-labelledby="evidence">.*?</section>', text, re.DOTALL)[0]
    words = " ".join(" ".join(Words(section).texts).split())
    for document in _mapping.bundled().documents:
        assert document.title in words
        assert document.state in words
    assert section.count("<table") == len(_mapping.bundled().documents)
    assert "Not covered by this run" in words
    assert "reviewed on 21 November 2026" in words
    assert words.count("evidence for") >= len(_mapping.bundled().documents)


def test_hostile_names_are_text(maker, tmp_path):
    clean(maker)
    cell(maker, "attacks", HOSTILE, {"epsilon": 0.01, "norm": "linf"})
    text = render(maker.write(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
