"""The verdict on top: failures of the audit first, then what was found, in plain words.

No word here says that a model is robust or safe: at most, that no loss was shown.
"""

from dataclasses import dataclass
from typing import Literal

from palpate.record import Record
from palpate.report import words
from palpate.report._doubt import doubt
from palpate.report.fault_words import measured, silent, worst_fault
from palpate.report.ladders import Ladder, models_of
from palpate.report.one_answer import belongs, one_answer
from palpate.statistics._check import Check
from palpate.statistics.cells import ALL_ATTACKS, Cells
from palpate.statistics.paired import Difference
from palpate.statistics.strata import WorstFault
from palpate.statistics.summary import Row, Summary
from palpate.statistics.table import Table

Finding = Literal[
    "breaks",
    "can break",
    "weakens",
    "may weaken",
    "no loss shown",
    "cannot judge",
    "could not test",
    "not tested",
]


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


MEANINGS: tuple[tuple[str, str], ...] = (
    (
        "breaks",
        (
            "weakens or may weaken, and the interval's upper end is no better than always giving"
            " the most frequent answer (other tasks: than half of the clean score), or balanced"
            " accuracy cannot be told from that of always giving one answer"
        ),
    ),
    ("can break", "one of the faults drawn took the score to that level; the rate is in the text"),
    ("weakens", "lower than on the same clean samples, beyond chance"),
    ("may weaken", "so on its own, but not after correction for the number of disturbances"),
    ("no loss shown", "no such difference, which is no proof that there is none"),
    (
        "cannot judge",
        (
            "no difference, but the clean model is no better than guessing either, or a check of"
            " the audit on itself failed"
        ),
    ),
    ("could not test", "the disturbance could not act, or its cells failed"),
)


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
        verdict=_sentence(failed, [line for _, _, lines in models for line in lines]),
    )


def chance_level(record: Record) -> float | None:
    """Score of always giving the most frequent answer; None where that means nothing."""
    cells = Cells(record)
    if cells.task.kind != "classification":
        return None
    for cell in cells.finished("none"):
        reference = record.samples(cell)["reference"][:, 0].tolist()
        return max(reference.count(c) for c in set(reference)) / len(reference)
    return None


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
    steps = [
        (row, ladder, text)
        for ladder in evidence.ladders
        if ladder.family == family and ladder.perturbation != ALL_ATTACKS
        for (_, text), row in zip(ladder.doses, ladder.lines[model], strict=True)
        if row is not None
    ]
    if not steps:
        planned = any(e["family"] == family for e in evidence.record.manifest["plan"])
        reason = "no cell finished" if planned else "not part of this audit"
        return Line(name, "could not test" if planned else "not tested", reason)
    if not (known := [step for step in steps if step[0].value is not None]):
        return Line(name, "could not test", steps[0][0].note or "no value")
    row, ladder, text = min(known, key=lambda s: s[0].value or 0.0)
    clean = ladder.clean[model]
    kind = "mean over the faults" if family == "faults" else "worst case"
    said = f"{kind}: {_left(row, ladder, text)}"
    said += f", from {words.number(clean.value)} clean" if clean else ""
    difference = _difference(row, evidence)
    if difference is not None:
        ends = words.interval(difference.low, difference.high)
        said += f" ({words.points(difference.value)} {ends})"
    if len(known) < len(steps):
        why = next(r.note for r, _, _ in steps if r.value is None)
        stuck = words.plural(len(steps) - len(known), "setting")
        said += f"; {stuck} without a number ({why})"
    if family == "faults":
        rate = silent(model, evidence.summary)
        said = f"{rate}; {said}{worst_fault(model, evidence.worst)}"
        return Line(name, _fault_finding(model, clean, evidence), said)
    finding = _finding(row, clean, difference, evidence)
    classes = len(evidence.record.manifest["dataset"]["task"]["classes"])
    constant = one_answer(model, family, summary=evidence.summary, classes=classes)
    if constant and finding in ("weakens", "may weaken"):
        finding = "breaks"
    return Line(name, finding, f"{said}; {constant}" if constant else said)


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


def _finding(
    row: Row, clean: Row | None, difference: Difference | None, evidence: Evidence
) -> Finding:
    if clean is None or clean.value is None or row.high is None or difference is None:
        return "could not test"
    chance, limit = chance_level(evidence.record), _limit(clean, evidence)
    if difference.high < 0:
        if limit is not None and row.high <= limit:
            return "breaks"
        sure = 1 - evidence.summary.confidence
        return "weakens" if (difference.p_holm or 0.0) < sure else "may weaken"
    if chance is not None and (clean.low is None or clean.low <= chance):
        return "cannot judge"
    return "no loss shown"


def _fault_finding(model: str, clean: Row | None, evidence: Evidence) -> Finding:
    """What single faults can do counts, however rare: a mean over many faults would hide it."""
    every = evidence.worst.find(target=model)
    own = [w for w in every if w.flips == 1] or every
    if not own:
        return "no loss shown"
    limit = _limit(clean, evidence)
    return "can break" if limit is not None and min(w.score for w in own) <= limit else "weakens"


def _limit(clean: Row | None, evidence: Evidence) -> float | None:
    """Score at or below which a model counts as broken."""
    chance = chance_level(evidence.record)
    if chance is None and clean is not None and clean.value is not None:
        return clean.value / 2
    return chance


def _difference(row: Row, evidence: Evidence) -> Difference | None:
    """Paired difference of the row's cell to the clean one."""
    for d in evidence.differences.find(kind="disturbance", perturbation=row.perturbation):
        if d.setting == row.setting and belongs(row, d.target):
            return d
    return None


def _sentence(failed: tuple[Check, ...], lines: list[Line]) -> str:
    if failed:
        return (
            f"{words.plural(len(failed), 'check')} of the audit on itself failed. Until this is"
            " explained, the numbers concerned are no evidence in either direction."
        )
    by: dict[str, set[str]] = {}
    for line in lines:
        by.setdefault(line.finding, set()).add(line.family.lower())
    broken = by.get("breaks", set())
    weak = (by.get("weakens", set()) | by.get("may weaken", set())) - broken
    said: list[str] = []
    if broken:
        said.append(f"broken by {words.listed(sorted(broken))}")
    if weak:
        said.append(f"weakened, or perhaps so, by {words.listed(sorted(weak))}")
    single = " Single faults can break a model." if "can break" in by else ""
    if said:
        text = "; ".join(said)
        return f"{text[0].upper()}{text[1:]}, within the doses tested.{single}"
    if single:
        return single.strip()
    if any(line.finding == "no loss shown" for line in lines):
        return "No loss was shown within the doses tested, which is no proof that there is none."
    return "Nothing was tested, or nothing that was tested gave a number."
