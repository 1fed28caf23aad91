"""The main metric of every cell by site, one table per model: a row per setting, a column per site.

A model that holds on the whole may fall at one hospital, on one scanner or in one modality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from palpate import registry
from palpate.record import Record
from palpate.report import tables, words
from palpate.report.ladders import main_metric
from palpate.statistics.sites import SiteRow, by_site
from palpate.statistics.table import Table

FEW: Final = 10
"""Cases below which an interval says little more than that there are few."""
_MOST: Final = 8  # columns that a reader can compare

Cell = tuple[str, str, str]  # family, component, setting as canonical JSON


@dataclass(frozen=True)
class SitesView:
    """What the page shows of the sites.

    Attributes:
        grids: one table per model.
        notes: sites with few cases, and those that are left out.
    """

    grids: tuple[tables.Grid, ...]
    notes: tuple[str, ...]


def site_rows(record: Record) -> Table[SiteRow]:
    """The main metric of each family by site; no rows where there is one site or none.

    Args:
        record: the run.
    """
    kind = record.manifest["dataset"]["task"]["kind"]
    names = {f: main_metric(f, kind) for f in ("none", *words.FAMILIES)}
    return by_site(record, {f: registry.create("metrics", n, {}) for f, n in names.items()})


def sites_view(rows: Table[SiteRow]) -> SitesView | None:
    """Tables for the page; None where there is nothing to tell apart.

    Args:
        rows: from `site_rows`.
    """
    if not rows.rows:
        return None
    sizes: dict[str, tuple[int, int]] = {}
    for row in rows:
        sizes[row.site] = max(sizes.get(row.site, (0, 0)), (row.cases, row.samples))
    shown = sorted(sizes, key=lambda site: -sizes[site][0])[:_MOST]
    shown = [site for site in sizes if site in shown]
    grids = tuple(
        _grid(rows.find(target=target), shown, sizes, target)
        for target in dict.fromkeys(row.target for row in rows)
    )
    return SitesView(grids, tuple(_notes(sizes, shown)))


def _notes(sizes: Mapping[str, tuple[int, int]], shown: Sequence[str]) -> list[str]:
    notes: list[str] = []
    if few := [site for site in shown if sizes[site][0] < FEW]:
        notes.append(
            f"{words.listed(few)}: fewer than {FEW} cases, so the interval itself is uncertain."
        )
    if rest := len(sizes) - len(shown):
        notes.append(f"The {len(shown)} sites with the most cases; {rest} more are not shown.")
    return notes


def _grid(
    rows: Sequence[SiteRow],
    shown: Sequence[str],
    sizes: Mapping[str, tuple[int, int]],
    target: str,
) -> tables.Grid:
    lines: dict[Cell, dict[str, SiteRow]] = {}
    for row in rows:
        lines.setdefault((row.family, row.perturbation, row.setting), {})[row.site] = row
    labels = short_labels(list(lines))
    metrics = dict.fromkeys(words.metric_name(row.metric) for row in rows)
    body = tuple(
        (labels[key], tuple(_entry(found.get(site)) for site in shown))
        for key, found in lines.items()
    )
    heads = tuple(f"{site} ({_size(*sizes[site])})" for site in shown)
    return tables.Grid(f"{target}: {' or '.join(metrics)} by site", "disturbance", heads, body)


def _size(cases: int, samples: int) -> str:
    cased = words.plural(cases, "case")
    return cased if cases == samples else f"{words.plural(samples, 'image')} of {cased}"


def _entry(row: SiteRow | None) -> tables.Entry | None:
    if row is None:
        return None
    found = row.found
    where = f"{row.site}: {words.metric_name(row.metric)}"
    if found.value is None:
        return tables.Entry("–", found.method, None, f"{where}: {found.method}")
    value = words.number(found.value, metric=row.metric)
    ends = words.interval(found.low, found.high, metric=row.metric)
    shade = min(1.0, max(0.0, 1 - found.value))
    title = (
        f"{where} {value} {ends}, {found.method}, {words.plural(found.n, 'row')} of"
        f" {words.plural(row.cases, 'case')}"
    )
    return tables.Entry(value, ends, shade, title)


def short_labels(cells: Sequence[Cell]) -> dict[Cell, str]:
    """Each cell in words, with the dose and what tells it from others of the same component."""
    settings = {key: orjson.loads(key[2]) for key in cells}
    labels: dict[Cell, str] = {}
    for key, setting in settings.items():
        others = [s for k, s in settings.items() if k[:2] == key[:2]]
        told = {k: v for k, v in setting.items() if any(s.get(k) != v for s in others)}
        dose = words.dose_of(setting)
        kept: dict[str, Any] = {dose: setting[dose], **told} if dose else told
        name = "clean" if key[0] == "none" else words.spaced(key[1])
        labels[key] = " · ".join(part for part in (name, words.setting_words(kept)) if part)
    return labels
