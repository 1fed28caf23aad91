"""The verdict on top: failures of the audit first, then what was found, in plain words.

No word here says that a model is robust or safe: at most, that no loss was shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palpate.record import Record
from palpate.report import words
from palpate.report._doubt import doubt
from palpate.report.fault_words import measured, silent, worst_fault, worst_of
from palpate.report.finding import (
    MEANINGS,
    Finding,
    chance_level,
    classes_present,
    fault_finding,
    finding,
)
from palpate.report.ladders import Ladder, models_of
from palpate.report.one_answer import belongs, one_answer
from palpate.statistics._check import Check
from palpate.statistics.cells import ALL_ATTACKS
from palpate.statistics.paired import Difference
from palpate.statistics.strata import WorstFault
from palpate.statistics.summary import FAILED, Row, Summary
from palpate.statistics.table import Table

__all__ = ["MEANINGS", "Evidence", "Line", "Verdict", "chance_level", "verdict"]


@dataclass(frozen=True)
class Line:
    """One finding about one model under one family.

    Attributes:
        family: name in words.
        finding: in one word; see `MEANINGS`.
        text: the number, its interval and where it was found.
    """

    family: str
    finding: Finding
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a hurried reader takes home.

    Attributes:
        failed: failed checks of the audit on itself.
        warned: number of warnings.
        tested: what was tested on what.
        models: per model, its clean performance and one line per family.
        verdict: one sentence.
    """

    failed: tuple[Check, ...]
    warned: int
    tested: str
    models: tuple[tuple[str, str, tuple[Line, ...]], ...]
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdict rests on.

    Attributes:
        record: the run.
        summary: its numbers.
        checks: its checks on itself.
        ladders: its numbers by dose.
        differences: against clean, and between models.
        worst: single faults.
    """

    record: Record
    summary: Summary
    checks: Table[Check]
    ladders: list[Ladder]
    differences: Table[Difference]
    worst: Table[WorstFault]


def verdict(evidence: Evidence) -> Verdict:
    """Put the whole run into a few sentences; every number with its interval."""
    failed = tuple(evidence.checks.find(status="fail"))
    models = tuple(
        (
            model,
            _clean(evidence.summary, model),
            tuple(
                _believed(_family(model, family, evidence), model, family, failed)
                for family in words.FAMILIES
            ),
        )
        for model in models_of(evidence.summary)
    )
    return Verdict(
        failed=failed,
        warned=len(evidence.checks.find(status="warn")),
        tested=_tested(evidence.record),
        models=models,
        verdict=_sentence(failed, [lines for _, _, lines in models]),
    )


def _tested(record: Record) -> str:
    data = record.manifest["dataset"]
    plan = record.manifest["plan"]
    targets = len({(e["target"], e["defence"]) for e in plan})
    cells = len([e for e in plan if e["family"] != "none"])
    cases = data.get("cases") or data["samples"]
    each = (
        "each counted as a patient of its own (if patients share images, intervals are too narrow)"
        if cases == data["samples"]
        else f"of {words.plural(cases, 'patient')}"
    )
    return (
        f"{words.plural(targets, 'model')} under {words.plural(cells, 'disturbance cell')}, on"
        f" {words.plural(data['samples'], 'image')} from {data['label']}, {each}."
    )


def _clean(summary: Summary, model: str) -> str:
    parts: list[str] = []
    for row in summary.rows:
        shown = row.metric in ("accuracy", "auc", "sensitivity", "specificity", "dice")
        if row.family == "none" and shown and belongs(row, model):
            parts.append(
                f"{words.metric_name(row.metric)} {words.number(row.value, metric=row.metric)}"
                f" {words.interval(row.low, row.high, metric=row.metric)}"
            )
    return "; ".join(parts) or "no clean result"


def _family(model: str, family: str, evidence: Evidence) -> Line:
    name = words.FAMILIES[family]
    steps = _steps(
        model,
        [x for x in evidence.ladders if x.family == family and x.perturbation != ALL_ATTACKS],
    )
    if not steps:
        planned = any(e["family"] == family for e in evidence.record.manifest["plan"])
        reason = "no cell finished" if planned else "not part of this audit"
        return Line(name, "could not test" if planned else "not tested", reason)
    if not (known := [step for step in steps if step[0].value is not None]):
        return Line(name, "could not test", steps[0][0].note or "no value")
    row, ladder, text = min(reversed(known), key=_value)  # of equal ones the largest dose
    clean, chance = ladder.clean[model], chance_level(evidence.record)
    difference = _difference(row, evidence, kind="disturbance")
    said = _said(row, ladder, text, difference=difference, clean=clean)
    together = _together(model, family, evidence)
    if together is not None and _value(together) < _value((row, ladder, text)):
        row = together[0]
        difference = _difference(row, evidence, kind="together") or difference
        said += f"; {_left(*together)}, each sample by its worst"
    said += _without_number([r for r, _, _ in steps]) + _unfinished(model, family, evidence.record)
    if family == "faults":
        faults = worst_of(model, evidence.worst)
        found = fault_finding(clean, faults, chance=chance)
        rate = silent(model, evidence.summary)
        return Line(name, found, f"{rate}; {said}; {worst_fault(faults)}")
    confidence = evidence.summary.confidence
    found = finding(row, clean, difference, chance=chance, confidence=confidence)
    classes = classes_present(evidence.record)
    constant = one_answer(model, family, summary=evidence.summary, classes=classes)
    if constant and found in ("weakens", "may weaken"):
        found = "breaks"
    return Line(name, found, f"{said}; {constant}" if constant else said)


Step = tuple[Row, Ladder, str]
"""A number, the ladder that it is on, and its dose."""


def _steps(model: str, ladders: list[Ladder]) -> list[Step]:
    return [
        (row, ladder, text)
        for ladder in ladders
        for (_, text), row in zip(ladder.doses, ladder.lines[model], strict=True)
        if row is not None
    ]


def _together(model: str, family: str, evidence: Evidence) -> Step | None:
    """The lowest number under several attacks of one budget together; None where there is none."""
    whole = [x for x in evidence.ladders if x.family == family and x.perturbation == ALL_ATTACKS]
    steps = _steps(model, whole)
    return min((s for s in steps if s[0].value is not None), key=_value, default=None)


def _value(step: Step) -> float:
    return step[0].value or 0.0


def _said(
    row: Row, ladder: Ladder, text: str, *, difference: Difference | None, clean: Row | None
) -> str:
    """The worst number with its place, what it was when clean, and what a reader must know."""
    kind = "mean over the faults" if row.family == "faults" else "worst case"
    said = f"{kind}: {_left(row, ladder, text)}"
    if clean is not None and clean.value is not None:
        said += f", from {words.number(clean.value)} clean"
    if difference is not None:
        ends = words.interval(difference.low, difference.high)
        said += f" ({words.points(difference.value)} {ends})"
    return f"{said}; {row.note}" if row.note else said


def _without_number(rows: list[Row]) -> str:
    """Settings that ran, and gave none."""
    empty = [r for r in rows if r.value is None and not r.note.startswith(FAILED)]
    if not empty:
        return ""
    return f"; {words.plural(len(empty), 'setting')} without a number ({empty[0].note})"


def _unfinished(model: str, family: str, record: Record) -> str:
    """Planned cells that failed or have not run."""
    planned = [e for e in record.manifest["plan"] if _concerns(e, model, family)]
    done = [c for c in record.cells if c.status == "ok" and c.samples]
    count = sum(_concerns(vars(c), model, family) for c in done)
    if count >= len(planned):
        return ""
    return f"; {len(planned) - count} of {words.plural(len(planned), 'cell')} without a result"


def _concerns(entry: Mapping[str, Any], model: str, family: str) -> bool:
    own = (
        entry["target"] if entry["defence"] == "none" else f"{entry['target']} + {entry['defence']}"
    )
    return own == model and entry["family"] == family


def _believed(line: Line, model: str, family: str, failed: tuple[Check, ...]) -> Line:
    """No loss is a finding only of an audit whose checks on itself have not failed."""
    why = doubt(model, family, failed) if line.finding == "no loss shown" else None
    if why is None:
        return line
    return Line(line.family, "cannot judge", f"{line.text}; the check '{why.check}' failed")


def _left(row: Row, ladder: Ladder, text: str) -> str:
    measure = "Dice" if row.metric == "dice" else "right"
    dose = f", {words.dose_title(ladder.dose)} {text}" if ladder.dose else ""
    return f"{measured(row)} {measure} under {ladder.title}{dose}"


def _difference(row: Row, evidence: Evidence, *, kind: str) -> Difference | None:
    """Paired difference of the row's cell, or of all attacks of its budget, to the clean one."""
    for d in evidence.differences.find(kind=kind, perturbation=row.perturbation):
        if d.setting == row.setting and belongs(row, d.target):
            return d
    return None


def _sentence(failed: tuple[Check, ...], models: list[tuple[Line, ...]]) -> str:
    if failed:
        return (
            f"{words.plural(len(failed), 'check')} of the audit on itself failed. Until this is"
            " explained, the numbers concerned are no evidence in either direction."
        )
    by: dict[str, set[str]] = {}
    for line in (line for lines in models for line in lines):
        by.setdefault(line.finding, set()).add(line.family.lower())
    broken = by.get("breaks", set())
    weak = (by.get("weakens", set()) | by.get("may weaken", set())) - broken
    said: list[str] = []
    if broken:
        said.append(f"broken by {words.listed(sorted(broken))}")
    if weak:
        said.append(f"weakened, or perhaps so, by {words.listed(sorted(weak))}")
    sentences: list[str] = []
    if said:
        text = "; ".join(said)
        sentences.append(f"{text[0].upper()}{text[1:]}, within the doses tested.")
    if "can break" in by:
        sentences.append("Some of the faults drawn can break a model.")
    if not sentences and "no loss shown" in by:
        sentences.append(
            "No loss was shown within the doses tested, which is no proof that there is none."
        )
    some = "for some models, " if len(models) > 1 else ""
    for word, what in (
        ("cannot judge", "could not be judged"),
        ("could not test", "gave no number"),
    ):
        if word in by:
            text = f"{some}{words.listed(sorted(by[word]))} {what}."
            sentences.append(f"{text[0].upper()}{text[1:]}")
    return " ".join(sentences) or "Nothing was tested."
