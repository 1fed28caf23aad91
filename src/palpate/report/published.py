"""Published values of a study beside what its protocol did here, at the same epsilons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
import yaml

from palpate import registry
from palpate.metrics._masks import has_regions
from palpate.record import CellRecord, Record
from palpate.report import tables, words
from palpate.report._prompt_cells import PromptCells
from palpate.statistics.cells import Cells
from palpate.statistics.estimate import Estimate
from palpate.statistics.paired import label
from palpate.statistics.summary import measure

_METRICS: Final = ("dice", "iou")
_MASKS: Final = ("segmentation", "prompted_segmentation")

Found = tuple[Estimate, ...]


@dataclass(frozen=True)
class Published:
    """One study's table beside ours.

    Attributes:
        grid: published columns first, then two per model and protocol.
        source: of the published values.
        note: what is not known of them, and which of our samples stand beside them.
    """

    grid: tables.Grid
    source: str
    note: str


def published(record: Record) -> Published | None:
    """The nine values of the vision-language study; None where its protocol was not run.

    Args:
        record: the run.
    """
    if record.manifest["dataset"]["task"]["kind"] not in _MASKS:
        return None
    study = _study()
    cells = Cells(record)
    site = _site(cells, study["site"])
    columns: dict[str, dict[tuple[str, float], Found]] = {}
    for who, ladders in _literal(PromptCells(cells)).items():
        places = {(a, e): cell for a, ladder in ladders.items() for e, cell in ladder.items()}
        kept = {key: cell for key, cell in places.items() if key in _keys(study)}
        if kept:
            first = next(iter(kept.values()))
            clean = [c for c in cells.finished("none") if label(c) == label(first)]
            found = {("none", 0.0): clean[0], **kept} if clean else kept
            columns[who] = {key: _found(cells, cell, site) for key, cell in found.items()}
    if not columns:
        return None
    beside = (
        f"Beside them stand our samples of {site} alone."
        if site
        else ("Beside them stand all samples of this run, which are not theirs.")
    )
    return Published(_grid(study, columns), study["source"], f"{study['note']} {beside}")


def _study() -> dict[str, Any]:
    path = resources.files("palpate").joinpath("data/vlsm_published.yaml")
    return yaml.safe_load(path.read_text("utf-8"))


def _keys(study: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(row["attack"], row.get("epsilon", 0.0)) for row in study["rows"]]


def _literal(cells: PromptCells) -> dict[str, dict[str, dict[float, CellRecord]]]:
    """FGSM and PGD of the literal protocol with the study's loss, by epsilon."""
    found: dict[str, dict[str, dict[float, CellRecord]]] = {}
    for model in cells.models:
        for protocol in cells.protocols(model):
            one = next(c for ladder in protocol.attacks.values() for c in ladder.values())
            if one.perturbation == "normalised_pgd" and one.setting.get("double_sigmoid", True):
                found[protocol.who] = protocol.attacks
    return found


def _site(cells: Cells, wanted: str) -> str:
    """The one site whose name says that it is the study's data; empty where there is none."""
    clean = cells.finished("none")
    names = np.unique(cells.rows(clean[0])["site"]).tolist() if clean else []
    own = [name for name in names if wanted in name.lower()]
    return own[0] if len(own) == 1 else ""


def _found(cells: Cells, cell: CellRecord, site: str) -> Found:
    rows = cells.rows(cell)
    if site:
        own = rows["site"] == site
        rows = {name: values[own] for name, values in rows.items()}
    known = _METRICS if has_regions(rows) else _METRICS[:1]
    return tuple(
        measure(
            registry.create("metrics", name),
            rows,
            cells,
            family=cell.family,
            notes=[],
            confidence=cells.confidence,
            resamples=cells.resamples,
        )
        for name in known
    )


def _grid(
    study: Mapping[str, Any], columns: Mapping[str, Mapping[tuple[str, float], Found]]
) -> tables.Grid:
    width = max(len(found) for column in columns.values() for found in column.values())
    names = [words.metric_name(m) for m in _METRICS]
    heads = [f"published, {name}" for name in names]
    heads += [f"{who}, {name}" for who in columns for name in names[:width]]
    rows: list[tuple[str, tuple[tables.Entry | None, ...]]] = []
    for row, key in zip(study["rows"], _keys(study), strict=True):
        entries: list[tables.Entry | None] = [_theirs(row[name] / 100) for name in _METRICS]
        for column in columns.values():
            entries += _ours(column.get(key), width)
        attack = f"{key[0]} · epsilon {words.dose_text('epsilon', key[1])}" if key[1] else "clean"
        rows.append((attack, tuple(entries)))
    caption = f"Published on {study['data']} beside the literal protocol here"
    return tables.Grid(caption, "attack", tuple(heads), tuple(rows))


def _theirs(value: float) -> tables.Entry:
    return tables.Entry(words.number(value), "", 1 - value, "published without an interval")


def _ours(found: Sequence[Estimate] | None, width: int) -> list[tables.Entry | None]:
    if found is None:
        return [None] * width
    entries: list[tables.Entry | None] = []
    for one in found:
        ends = words.interval(one.low, one.high)
        shade = None if one.value is None else 1 - one.value
        entries.append(
            tables.Entry(words.number(one.value), ends, shade, f"{one.method}, {one.n} rows")
        )
    return entries
