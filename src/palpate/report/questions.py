"""Questions that a reader brings, answered in words with numbers, where the audit has the data.

Each answer is yes, no, or that it cannot be told: the last wherever the interval holds the limit.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import orjson

from palpate.record import Record
from palpate.report import words
from palpate.report.answer import Answer, Question
from palpate.report.fault_words import measured
from palpate.report.finding import chance_level, classes_present
from palpate.report.ladders import model_of, models_of
from palpate.report.mask_questions import mask_questions
from palpate.report.prompt_questions import prompt_questions
from palpate.statistics.bend import bends
from palpate.statistics.cells import Cells, is_chosen
from palpate.statistics.critical import Critical, critical_bits, fates
from palpate.statistics.estimate import Estimate
from palpate.statistics.paired import Difference, label, way
from palpate.statistics.strata import sites_of
from palpate.statistics.summary import Row, Summary
from palpate.statistics.table import Table

NEAR_ZERO: Final = 0.1
_LEVEL: Final = 1 / 255
_TOP: Final = "top exponent bit"
_NAMED: Final = 6  # tensors listed by name
_MANY: Final = 1 << 60


def questions(
    record: Record, summary: Summary, differences: Table[Difference]
) -> tuple[Question, ...]:
    """The questions that this audit can answer.

    Args:
        record: the run.
        summary: its numbers.
        differences: its paired differences.
    """
    known = Table(tuple(critical_bits(record).find(perturbation="weight_bit_flip")))
    classes = classes_present(record)
    asked = (
        (f"Does PGD take it near zero (below {NEAR_ZERO:.0%}) at 1/255?", _near_zero(summary)),
        ("Does the score fall gradually, then sharply, as patches are dropped?", _gradual(record)),
        ("Can one flip of a top exponent bit bring it to chance?", _to_chance(record, known)),
        ("Are the stem and the scan the most fragile parts?", _fragile(known)),
        (
            "Which model is better, on the same images?",
            _better(differences, summary, classes=classes),
        ),
        *mask_questions(record, summary),
        *prompt_questions(record),
    )
    found = ((text, tuple(answers)) for text, answers in asked)
    return tuple(Question(text, answers) for text, answers in found if answers)


def _near_zero(summary: Summary) -> Iterator[Answer]:
    rows = summary.find(family="attacks", perturbation="pgd", metric="robust_accuracy")
    for model in models_of(summary):
        curve: dict[float, Row] = {}
        for row in rows:
            setting = orjson.loads(row.setting)
            known = row.value is not None and row.high is not None
            if model_of(row) == model and setting.get("norm") == "linf" and known:
                curve[setting["epsilon"]] = row
        at = next((row for e, row in curve.items() if abs(e - _LEVEL) < 1e-9), None)
        if at is None:
            continue
        verdict = _above(at.low, at.high, NEAR_ZERO, yes="no", no="yes")
        zero = [e for e, row in sorted(curve.items()) if (row.high or 1.0) < NEAR_ZERO]
        where = (
            f"the whole interval is below it from epsilon {words.dose_text('epsilon', zero[0])} on"
            if zero
            else f"not below it up to epsilon {words.dose_text('epsilon', max(curve))}"
        )
        yield Answer(model, verdict, f"robust accuracy {measured(at)} at 1/255; {where}")


def _gradual(record: Record) -> Iterator[Answer]:
    chance = chance_level(record)
    for row in bends(record, "patch_drop", "coverage"):
        verdict = _above(row.excess.low, row.excess.high, 0.0, yes="yes", no="no, the reverse")
        middle, last = (f"{x:.0%}" for x in (row.middle, row.last))
        text = (
            f"per tenth of the patches it loses {_tenth(row.early)} up to {middle} dropped and"
            f" {_tenth(row.late)} from there to {last}; difference {_tenth(row.excess)}; it ends at"
            f" {words.number(row.end.value)} {words.interval(row.end.low, row.end.high)}"
        )
        if chance is not None:
            text += f", always giving the most frequent answer at {words.number(chance)}"
        yield Answer(row.target, verdict, text)


def _tenth(slope: Estimate) -> str:
    if slope.value is None or slope.low is None or slope.high is None:
        return "–"
    ends = words.interval(slope.low / 10, slope.high / 10)
    return f"{words.points(slope.value / 10).removeprefix('+')} {ends}"


def _to_chance(record: Record, known: Table[Critical]) -> Iterator[Answer]:
    cells = Cells(record)
    tensors: dict[str, Counter[str]] = {}
    flips, hits = Counter[str](), Counter[str]()
    needed: dict[str, int] = {}
    for cell in cells.finished("faults"):
        fatal = fates(cells.rows(cell), cell.trials, kind=cells.task.kind)[2]
        if np.isnan(fatal).any():
            continue  # without a clean result there is nothing to fall from
        if is_chosen(cell.notes):
            numbers = [n["flips"] for n, f in zip(cell.notes, fatal.tolist(), strict=True) if f]
            needed[label(cell)] = min([needed.get(label(cell), _MANY), *numbers])
            continue
        single = all(note.get("flips") == 1 for note in cell.notes)
        if cell.perturbation != "weight_bit_flip" or not single:
            continue
        for note, falls in zip(cell.notes, np.asarray(fatal).tolist(), strict=True):
            site = sites_of(note)[0]
            if site.get("part") == _TOP:
                flips[label(cell)] += 1
                hits[label(cell)] += int(falls)
                tensors.setdefault(label(cell), Counter())[site["tensor"]] += int(falls)
    for model, drawn in flips.items():
        rates = known.find(by="part", name=_TOP, target=model)
        best = min(rates, key=lambda r: _width(r.fatal))
        rate = f"{words.number(best.fatal.value)} {words.interval(best.fatal.low, best.fatal.high)}"
        where = [t for t, n in tensors[model].most_common() if n]
        listed = words.listed(where[:_NAMED])
        more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
        text = f"{hits[model]} of {words.plural(drawn, 'flip')} drawn; {rate} of these bits"
        text += f"; in {listed}{more}" if where else ""
        if model in needed:
            count = needed[model]
            text += "; the search " + (
                f"needs {words.plural(count, 'flip')}" if count < _MANY else "did not get it there"
            )
        yield Answer(model, "yes" if hits[model] else "not seen", text)


def _fragile(known: Table[Critical]) -> Iterator[Answer]:
    for model in dict.fromkeys(r.target for r in known.rows):
        cells = {r.setting for r in known.find(target=model, by="role", name="scan")}
        if not cells:
            continue
        best = min(cells, key=lambda s: _spread(known.find(target=model, by="role", setting=s)))
        roles = {r.name: r for r in known.find(target=model, by="role", setting=best)}
        if not {"stem", "scan", "rest"} <= roles.keys():
            continue
        rest = roles["rest"].harmful
        more = [_compared(roles[name].harmful, rest) for name in ("stem", "scan")]
        verdict = "yes" if more == [1, 1] else "no" if -1 in more else "cannot tell"
        said = [f"{name} {_harm(roles[name])}" for name in ("stem", "scan", "rest")]
        groups = known.find(target=model, by="group", setting=best)
        worst = sorted(groups, key=lambda r: -(r.harmful.value or 0.0))[:3]
        named = words.listed([f"{r.name} ({words.number(r.harmful.value)})" for r in worst])
        text = f"harmful bits: {'; '.join(said)}; highest per bit: {named}"
        yield Answer(model, verdict, text)


def _harm(row: Critical) -> str:
    share = f"{words.number(row.harmful.value)} {words.interval(row.harmful.low, row.harmful.high)}"
    each = (row.harmful.value or 0.0) * row.bits / row.elements
    return f"{share} per bit, {each:.2g} per parameter"


def _compared(one: Estimate, other: Estimate) -> int:
    """1 or -1 where the intervals do not meet, else 0."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return 0
    return 1 if one.low > other.high else -1 if one.high < other.low else 0


def _better(differences: Table[Difference], summary: Summary, *, classes: int) -> Iterator[Answer]:
    pairs: dict[tuple[str, str], list[Difference]] = {}
    for row in differences.find(kind="model"):
        pairs.setdefault((row.target, row.other), []).append(row)
    for (one, other), rows in pairs.items():
        clean = next((r for r in rows if r.family == "none"), None)
        told = [r for r in rows if r.family != "none"]
        sure = [r for r in told if r.p_holm is not None and r.p_holm < 0.05 and _way(r)]
        true = [r for r in sure if not _is_hollow(r, summary, classes=classes)]
        better, worse = sum(r.value > 0 for r in true), sum(r.value < 0 for r in true)
        # what is worse on clean images, by its whole interval, is not simply the better model
        up = better > 0 or (worse > 0 and clean is not None and clean.low > 0)
        down = worse > 0 or (better > 0 and clean is not None and clean.high < 0)
        verdict = {(True, False): one, (False, True): other, (True, True): "it depends"}
        start = (
            f"clean {words.points(clean.value)} {words.interval(clean.low, clean.high)}; "
            if clean
            else ""
        )
        text = (
            f"{start}of {words.plural(len(told), 'disturbance')} {one} is better in {better} and"
            f" worse in {worse} after Holm's correction, the others cannot be told apart"
        )
        if hollow := len(sure) - len(true):
            text += (
                f"; in {hollow} more the one that scores higher cannot be told from a model that"
                " gives everyone one answer, which is no merit"
            )
        who = f"{one} minus {other}"
        yield Answer(who, verdict.get((up, down), "cannot tell"), text)


def _way(row: Difference) -> int:
    return way(row.value, gains=row.gains, losses=row.losses)


def _is_hollow(row: Difference, summary: Summary, *, classes: int) -> bool:
    """Whether the better model only repeats the most frequent answer."""
    winner = row.target if row.value > 0 else row.other
    found = summary.find(
        metric="balanced_accuracy", perturbation=row.perturbation, setting=row.setting
    )
    own = [r for r in found if model_of(r) == winner and r.low is not None]
    return classes > 1 and any((r.low or 0.0) <= 1 / classes for r in own)


def _above(low: float | None, high: float | None, limit: float, *, yes: str, no: str) -> str:
    if low is None or high is None:
        return "cannot tell"
    return yes if low > limit else no if high < limit else "cannot tell"


def _width(found: Estimate) -> float:
    return 2.0 if found.low is None or found.high is None else found.high - found.low


def _spread(rows: Sequence[Critical]) -> float:
    return sum(_width(r.harmful) for r in rows)
