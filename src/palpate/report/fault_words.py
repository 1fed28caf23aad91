"""What faults did, in words."""

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


def worst_fault(model: str, worst: Table[WorstFault]) -> str:
    """What the worst single fault of the run did."""
    own = [w for w in worst.find(target=model) if w.flips == 1]
    if not own:
        return "; no single fault changed a decision"
    one = min(own, key=lambda w: w.score - w.clean)
    return (
        f"; the worst single fault ({one.site}) takes the score from {words.number(one.clean)} to"
        f" {words.number(one.score)}"
        + (f", noticed in {words.number(one.due)} of the images" if one.due else ", unnoticed")
    )
