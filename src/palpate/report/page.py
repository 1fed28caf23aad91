"""`render(record, path)`: the whole report as one HTML file without network or JavaScript."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from palpate.record import Record, write_atomic
from palpate.report import figures, tables, words
from palpate.report.appendix import glossary, not_tested, provenance
from palpate.report.gallery import gallery
from palpate.report.headline import MEANINGS, Evidence, chance_level, verdict
from palpate.report.ladders import Ladder, ladders, models_of, several_attacks
from palpate.statistics.checks import checks
from palpate.statistics.paired import Difference, paired
from palpate.statistics.strata import Stratum, strata, worst_faults
from palpate.statistics.summary import Summary, summarise
from palpate.statistics.table import Table

_LAYERS = 24  # layers drawn per model; the table lists up to _LAYER_ROWS
_LAYER_ROWS = 80


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


@dataclass(frozen=True)
class FaultView:
    """The faults of one model under one fault model.

    Attributes:
        title: model and setting.
        whole: over all faults.
        fields: by bit field.
        layers: by layer, as listed.
        bits: by bit position.
        left_out: layers that are not listed.
        by_layer: drawing; None without layers.
        by_bit: drawing; None without bits.
        worst: worst single faults.
    """

    title: str
    whole: Stratum
    fields: Sequence[Stratum]
    layers: Sequence[Stratum]
    bits: Sequence[Stratum]
    left_out: int
    by_layer: Markup | None
    by_bit: Markup | None
    worst: Sequence[Any]


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
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(_content(record) | _helpers())
    write_atomic(path, text.encode())
    return path


def _content(record: Record) -> dict[str, Any]:
    summary = summarise(record)
    found = ladders(summary, record.manifest["dataset"]["task"]["kind"])
    checked, differences, worst = (
        checks(record, summary=summary),
        paired(record),
        worst_faults(record),
    )
    chance = chance_level(record)
    return {
        "style": Markup(_source("style.css")),
        "manifest": record.manifest,
        "confidence": f"{summary.confidence * 100:g} %",
        "verdict": verdict(Evidence(record, summary, checked, found, differences, worst)),
        "meanings": MEANINGS,
        "checks": checked,
        "chance": chance,
        "overview": tables.overview(found, summary),
        "sections": _sections(found, models_of(summary), chance=chance),
        "differences": differences.find(kind="disturbance"),
        "duels": _duels(differences),
        "cards": gallery(record),
        "faults": _faults(record, worst),
        "not_tested": not_tested(record),
        "failed": [c for c in record.cells if c.status != "ok"],
        "missing": record.missing,
        "numbers": _numbers(summary),
        "provenance": provenance(record),
        "glossary": glossary(),
    }


def _helpers() -> dict[str, Any]:
    return {
        "number": words.number,
        "interval": words.interval,
        "count": words.count,
        "plural": words.plural,
        "points": words.points,
        "spaced": words.spaced,
        "setting_words": _setting_words,
    }


def _source(name: str) -> str:
    return (files("palpate.report") / name).read_text(encoding="utf-8")


def _setting_words(text: str) -> str:
    return words.setting_words(orjson.loads(text))


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


def _legend(models: list[str], within: str) -> tuple[tuple[str, Markup], ...]:
    return tuple(
        (model, Markup(figures.swatch(i, within=within))) for i, model in enumerate(models)
    )


def _duels(differences: Table[Difference]) -> dict[str, list[Difference]]:
    duels: dict[str, list[Difference]] = {}
    for row in differences.find(kind="model"):
        duels.setdefault(f"{row.target} minus {row.other}", []).append(row)
    return duels


def _faults(record: Record, worst: Table[Any]) -> list[FaultView]:
    rows, views = strata(record), list[FaultView]()
    for whole in rows.find(by="all"):
        same = {k: getattr(whole, k) for k in ("target", "perturbation", "setting")}
        layers = sorted(rows.find(by="layer", **same), key=lambda r: -(r.sdc.value or 0.0))
        bits = rows.find(by="bit", **same)
        setting = _setting_words(whole.setting)
        title = f"{whole.target} · {words.spaced(whole.perturbation)}, {setting}"
        drawn = layers[:_LAYERS]
        views.append(
            FaultView(
                title=title,
                whole=whole,
                fields=rows.find(by="field", **same),
                layers=layers[:_LAYER_ROWS],
                bits=bits,
                left_out=max(0, len(layers) - _LAYER_ROWS),
                by_layer=_dots(drawn, f"by layer, {title}", upright=False),
                by_bit=_dots(bits, f"by bit position, {title}", upright=True),
                worst=worst.find(**same),
            )
        )
    return views


def _dots(rows: Sequence[Stratum], title: str, *, upright: bool) -> Markup | None:
    if not rows:
        return None
    # both ends of a path tell layers apart: the stage and block, and the module
    labels = [r.name if len(r.name) <= 36 else f"{r.name[:18]}…{r.name[-17:]}" for r in rows]
    return Markup(figures.dots(rows, title=title, labels=labels, upright=upright))


def _numbers(summary: Summary) -> list[tables.Grid]:
    families = ["none", *words.FAMILIES]
    present = [f for f in families if any(r.family == f for r in summary.rows)]
    return [tables.every_number(summary, family) for family in present]
