"""JUnit XML, the format that every CI server reads."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from xml.etree import ElementTree as ET

from palpate.statistics._check import Check
from palpate.statistics.gates import Judgement

_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold (section 2.2)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test case.

    Attributes:
        group: what it belongs to.
        name: of the case.
        status: how it ended.
        evidence: the numbers behind it.
    """

    group: str
    name: str
    status: Literal["pass", "fail", "error", "skipped"]
    evidence: str


def junit(suite: str, cases: Sequence[Case]) -> bytes:
    """One test suite as an XML document.

    Args:
        suite: its name.
        cases: in order.
    """
    counts = {s: sum(case.status == s for case in cases) for s in ("fail", "error", "skipped")}
    numbers = {
        "tests": str(len(cases)),
        "failures": str(counts["fail"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
    }
    root = ET.Element("testsuites", {"name": _clean(suite), **numbers})
    inner = ET.SubElement(root, "testsuite", {"name": _clean(suite), **numbers})
    tags = {"fail": "failure", "error": "error", "skipped": "skipped"}
    seen: Counter[tuple[str, str]] = Counter()
    for case in cases:
        seen[case.group, case.name] += 1
        number = seen[case.group, case.name]  # servers merge cases of the same name
        name = case.name if number == 1 else f"{case.name} ({number})"
        names = {"classname": _clean(case.group), "name": _clean(name), "time": "0"}
        element = ET.SubElement(inner, "testcase", names)
        if case.status in tags:
            first = case.evidence.partition("\n")[0]
            told = ET.SubElement(element, tags[case.status], {"message": _clean(first)})
            told.text = _clean(case.evidence)
        elif case.evidence:
            ET.SubElement(element, "system-out").text = _clean(case.evidence)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def gate_cases(found: Judgement) -> list[Case]:
    """A case per gate and cell, and an error per planned cell without a result."""
    cases = [
        Case(row.gate, row.cell or "whole run", row.status, row.evidence) for row in found.rows
    ]
    why = "planned, but failed or not run"
    return cases + [Case("every planned cell finished", c, "error", why) for c in found.unfinished]


def check_cases(checks: Sequence[Check]) -> list[Case]:
    """A case per check of the audit on itself; a warning passes with its evidence."""
    ends: dict[str, Literal["pass", "fail", "skipped"]] = {"fail": "fail", "not run": "skipped"}
    return [
        Case(
            c.check,
            c.cell or "whole run",
            ends.get(c.status, "pass"),
            f"{'warning: ' if c.status == 'warn' else ''}{c.evidence}",
        )
        for c in checks
    ]


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
