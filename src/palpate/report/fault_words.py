"""What faults did, in words."""

from collections.abc import Sequence
from typing import Any

import orjson

from palpate.report import words
from palpate.report.one_answer import belongs
from palpate.statistics.estimate import Estimate
from palpate.statistics.strata import WorstFault
from palpate.statistics.summary import CHOSEN, Row, Summary
from palpate.statistics.table import Table


def silent(model: str, summary: Summary) -> str:
    """The best known rate of silent changes, and of non-finite outputs in the same cell."""
    found = summary.find(metric="sdc_rate")
    if not (rates := [r for r in found if belongs(r, model) and r.value is not None]):
        return "no rate of silent changes"
    drawn = [r for r in rates if not r.note.startswith(CHOSEN)] or rates
    single = [r for r in drawn if _is_single(orjson.loads(r.setting))] or drawn
    row = min(single, key=lambda r: (r.high or 1.0) - (r.low or 0.0))  # the best known one
    said = f"{measured(row)} of decisions silently changed"
    for due in summary.find(metric="due_rate", cell=row.cell):
        said += f" and {measured(due)} lost to non-finite output"
    setting = words.setting_words(orjson.loads(row.setting))
    return f"{said} under {words.spaced(row.perturbation)} ({setting})"


def _is_single(setting: dict[str, Any]) -> bool:
    return setting.get("flips", 1) == 1 and not setting.get("bit_error_rate")


def measured(row: Row | Estimate) -> str:
    """A value with its interval."""
    return f"{words.number(row.value)} {words.interval(row.low, row.high)}"


def worst_of(model: str, worst: Table[WorstFault]) -> list[WorstFault]:
    """Faults of one model that did harm: those of a single flip, or all where none of these did."""
    every = worst.find(target=model)
    return [w for w in every if w.flips == 1] or every


def worst_fault(worst: Sequence[WorstFault]) -> str:
    """What the worst of some faults did."""
    if not worst:
        return "no fault changed a decision"
    one = min(worst, key=lambda w: w.score - w.clean)
    if one.score >= one.clean:
        return "some faults changed decisions, none lowered the score"
    kind = "single fault" if one.flips == 1 else f"draw of {one.flips} flips"
    return (
        f"the worst {kind} ({one.site}) takes the score from {words.number(one.clean)} to"
        f" {words.number(one.score)}"
        + (f", noticed in {words.number(one.due)} of the images" if one.due else ", unnoticed")
    )
