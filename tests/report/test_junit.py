from xml.etree import ElementTree as ET

from palpate.report.gate_table import aligned, gate_headline, gate_table
from palpate.report.junit import Case, check_cases, gate_cases, junit
from palpate.statistics._check import Check
from palpate.statistics.gates import judge, parse_gates

GATES = {
    "gates": [
        {"metric": "accuracy", "perturbation": "none", "at_least": 0.5},
        {"metric": "accuracy", "perturbation": "pgd", "at_least": 0.999},
    ]
}


def test_every_case_is_counted_and_kept():
    text = junit(
        "suite <1>",
        [
            Case("g", "a", "pass", "fine & well"),
            Case("g", "a", "fail", 'low "0.1" < 0.5\nsecond line'),
            Case("g", "b", "error", "lost"),
            Case("g", "c", "skipped", "not run"),
            Case("g", "d\x00\ud800", "pass", ""),
        ],
    )
    root = ET.fromstring(text)

    assert text.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    for element in (root, root[0]):
        counts = {k: element.get(k) for k in ("name", "tests", "failures", "errors", "skipped")}
        assert list(counts.values()) == ["suite <1>", "5", "1", "1", "1"]
    cases = root[0].findall("testcase")
    assert [c.get("name") for c in cases] == ["a", "a (2)", "b", "c", "d\ufffd\ufffd"]
    assert [[child.tag for child in c] for c in cases] == [
        ["system-out"],
        ["failure"],
        ["error"],
        ["skipped"],
        [],
    ]
    assert cases[1][0].get("message") == 'low "0.1" < 0.5'
    assert cases[1][0].text.endswith("second line")


def test_gates_and_lost_cells_are_cases(rich):
    found = judge(rich, parse_gates(GATES))
    cases = gate_cases(found)

    assert len(cases) == len(found)
    assert cases[0].group == "accuracy clean at least 0.5"
    assert [c.status for c in cases] == [r.status for r in found]
    ET.fromstring(junit("s", cases))


def test_warnings_pass_and_checks_not_made_are_skipped():
    checks = [Check("x", s, "", "why") for s in ("pass", "warn", "fail", "not run")]
    cases = check_cases(checks)

    assert [c.status for c in cases] == ["pass", "pass", "fail", "skipped"]
    assert cases[1].evidence == "warning: why"


def test_the_table_is_plain_text_too(rich):
    found = judge(rich, parse_gates(GATES))
    lines = aligned(gate_table(found)).splitlines()

    assert lines[0].split() == ["status", "gate", "cell", "evidence"]
    assert len(lines) == len(found) + 1
    assert len({line.index("mamba, ") for line in lines if "mamba, " in line}) == 1
    assert gate_headline(found) == "gates: 3 passed, 8 failed"
