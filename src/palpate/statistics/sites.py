"""Every cell by site: what one hospital, scanner, set or modality loses, with its own interval."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from palpate import registry
from palpate.metrics.base import Metric, Rows
from palpate.record import CellRecord, Record
from palpate.statistics.cells import Cells
from palpate.statistics.estimate import Estimate
from palpate.statistics.paired import label
from palpate.statistics.summary import measure
from palpate.statistics.table import Table

UNNAMED = "no site given"


@dataclass(frozen=True)
class SiteRow:
    """One metric of one cell on the samples of one site.

    Attributes:
        target: model with its defence.
        family: "none" for clean.
        perturbation: "none" for clean.
        setting: parameters as canonical JSON.
        metric: component name.
        site: name.
        samples: of this site.
        cases: of this site; the interval rests on them.
        found: value with interval.
        cell: key.
    """

    target: str
    family: str
    perturbation: str
    setting: str
    metric: str
    site: str
    samples: int
    cases: int
    found: Estimate
    cell: str


def by_site(record: Record, metrics: Mapping[str, Metric]) -> Table[SiteRow]:
    """Estimate one metric of every finished cell for each site; none where there is one site.

    Args:
        record: the run.
        metrics: per family, "none" for clean; families that are absent are left out.
    """
    cells = Cells(record)
    rows: list[SiteRow] = []
    for cell in cells.finished(*metrics):
        columns = cells.rows(cell)
        names = np.unique(columns["site"]).tolist()
        if len(names) > 1:
            rows += [_row(cells, cell, columns, metrics[cell.family], name) for name in names]
    return Table(tuple(rows))


def _row(cells: Cells, cell: CellRecord, columns: Rows, metric: Metric, site: str) -> SiteRow:
    own = columns["site"] == site
    part = {name: values[own] for name, values in columns.items()}
    found = measure(
        metric,
        part,
        cells,
        family=cell.family,
        notes=cell.notes,
        confidence=cells.confidence,
        resamples=cells.resamples,
    )
    if found.value is None:
        found = replace(found, n=int(own.sum()))
    return SiteRow(
        target=label(cell),
        family=cell.family,
        perturbation=cell.perturbation,
        setting=registry.canonical(cell.setting),
        metric=registry.name_of(metric),
        site=site or UNNAMED,
        samples=len(np.unique(part["sample"])),
        cases=len(np.unique(part["case"])),
        found=found,
        cell=cell.key,
    )
