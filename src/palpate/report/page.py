"""`render(record, path)`: the whole report as one HTML file without network or JavaScript."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from palpate.record import Record
from palpate.report import figures, tables, words
from palpate.report._template import write_page
from palpate.report.appendix import glossary, not_tested, provenance
from palpate.report.dose_rows import dose_rows
from palpate.report.evidence import evidence
from palpate.report.fault_view import fault_views
from palpate.report.gallery import gallery
from palpate.report.headline import MEANINGS, Evidence, chance_level, verdict
from palpate.report.ladders import Ladder, ladders, models_of, several_attacks
from palpate.report.published import published
from palpate.report.questions import questions
from palpate.report.sites import site_rows, sites_view
from palpate.statistics.certified import certified
from palpate.statistics.checks import checks
from palpate.statistics.critical import Critical
from palpate.statistics.paired import Difference, paired
from palpate.statistics.strata import worst_faults
from palpate.statistics.summary import Summary, summarise
from palpate.statistics.table import Table
from palpate.statistics.upsets import upsets


@dataclass(frozen=True)
class Section:
    """Charts and tables of one family.

    Attributes:
        family: key.
        title: heading.
        legend: name and swatch of each model.
        charts: heading and drawing of each ladder.
        grids: table twins, one per kind of dose.
    """

    family: str
    title: str
    legend: tuple[tuple[str, Markup], ...]
    charts: tuple[tuple[str, Markup], ...]
    grids: tuple[tables.Grid, ...]


def render(record: Record, path: Path) -> Path:
    """Write the report of a run, finished or not.

    Args:
        record: the run.
        path: of the HTML file.

    Returns:
        The path.

    Raises:
        StoreError: the file cannot be written.
    """
    return write_page(path, "page.html", _content(record))


def _content(record: Record) -> dict[str, Any]:
    summary = summarise(record)
    found = ladders(summary, record.manifest["dataset"]["task"]["kind"])
    checked, differences, worst = (
        checks(record, summary=summary),
        paired(record),
        worst_faults(record),
    )
    chance = chance_level(record)
    views = fault_views(record, worst)
    sites = sites_view(site_rows(record))
    return {
        "manifest": record.manifest,
        "bits_of": _bits_of,
        "confidence": f"{summary.confidence * 100:g} %",
        "verdict": verdict(Evidence(record, summary, checked, found, differences, worst)),
        "meanings": MEANINGS,
        "questions": questions(record, summary, differences),
        "checks": checked,
        "chance": chance,
        "overview": tables.overview(found, summary),
        "sections": _sections(found, models_of(summary), chance=chance),
        "differences": differences.find(kind="disturbance"),
        "duels": _duels(differences),
        "doses": dose_rows(record),
        "cards": gallery(record),
        "faults": views,
        "flip_curves": _flip_curves(found, chance=chance),
        "fault_legend": _legend(models_of(summary), "faults"),
        "has_critical": any(view.critical for view in views),
        "upsets": upsets(record),
        "certified": certified(record),
        "sites": sites,
        "published": published(record),
        "not_tested": not_tested(record, by_site=sites is not None),
        "evidence": evidence(record, summary=summary, checks=checked),
        "failed": [c for c in record.cells if c.status != "ok"],
        "missing": record.missing,
        "numbers": _numbers(summary),
        "provenance": provenance(record),
        "glossary": glossary(),
    }


def _bits_of(row: Critical) -> str:
    counted = row.count()
    if counted is None:
        return "–"
    value, low, high = (words.count(number) for number in counted)
    return f"{value} [{low}, {high}]"


def _sections(found: list[Ladder], models: list[str], *, chance: float | None) -> list[Section]:
    sections: list[Section] = []
    for family, title in words.FAMILIES.items():
        own = [x for x in found if x.family == family and several_attacks(x)]
        if not own or family == "faults":
            continue
        charts = tuple(
            (ladder.title, Markup(figures.curve(ladder, chance=chance)))
            for ladder in own
            if ladder.dose
        )
        grids = tuple(
            tables.ladder_grid(
                [ladder for ladder in own if ladder.scale == scale],
                f"{title} by {scale}: {words.metric_name(own[0].metric)}",
            )
            for scale in dict.fromkeys(ladder.scale for ladder in own)
        )
        sections.append(Section(family, title, _legend(models, family), charts, grids))
    return sections


def _flip_curves(found: list[Ladder], *, chance: float | None) -> tuple[tuple[str, Markup], ...]:
    """Score against the number of flips and against the bit error rate."""
    return tuple(
        (
            f"{ladder.title}, by {words.dose_title(ladder.dose)}",
            Markup(figures.curve(ladder, chance=chance)),
        )
        for ladder in found
        if ladder.family == "faults" and len(ladder.doses) > 1
    )


def _legend(models: list[str], within: str) -> tuple[tuple[str, Markup], ...]:
    return tuple(
        (model, Markup(figures.swatch(i, within=within))) for i, model in enumerate(models)
    )


def _duels(differences: Table[Difference]) -> dict[str, list[Difference]]:
    duels: dict[str, list[Difference]] = {}
    for row in differences.find(kind="model"):
        duels.setdefault(f"{row.target} minus {row.other}", []).append(row)
    return duels


def _numbers(summary: Summary) -> list[tables.Grid]:
    families = ["none", *words.FAMILIES]
    present = [f for f in families if any(r.family == f for r in summary.rows)]
    return [tables.every_number(summary, family) for family in present]
