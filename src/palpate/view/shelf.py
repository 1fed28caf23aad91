"""A run directory opened for browsing: the plan at once, everything else when it is asked for."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from palpate.errors import StoreError
from palpate.metrics.base import DENSE, Rows
from palpate.record import CellRecord
from palpate.report.gallery import answer_words
from palpate.report.pictures import Shown, pictures
from palpate.view import cells
from palpate.view.cells import Brief
from palpate.view.files import RunFiles, Unknown
from palpate.view.samples import COMPARED, outcomes, samples_sheet
from palpate.view.sheet import Query, Sheet

_KEPT: Final = 4  # cells whose rows stay in memory


@dataclass
class Shelf:
    """Answers what a page asks of one run.

    Attributes:
        files: of the run.
    """

    files: RunFiles
    _rows: "OrderedDict[str, Rows]" = field(default_factory=OrderedDict)
    _briefs: dict[str, tuple[int, Brief]] = field(default_factory=dict)
    _plan: Sheet = field(init=False)

    def __post_init__(self) -> None:
        self._plan = cells.plan_sheet(list(self.files.entries.values()))
        self._keys = list(self.files.entries)

    @classmethod
    def open(cls, folder: Path) -> "Shelf":
        """Open a run directory.

        Raises:
            StoreError: no run there, a damaged manifest, or a version that cannot be read.
        """
        return cls(RunFiles.open(folder))

    @property
    def keys(self) -> list[str]:
        """Keys of the plan, in its order."""
        return self._keys

    @property
    def _dense(self) -> bool:
        return self.files.task.kind in DENSE

    def about(self) -> dict[str, Any]:
        """What the head of the page says of the run."""
        manifest = self.files.manifest
        finished = {path.stem for path in (self.files.folder / "cells").glob("*.json")}
        return {
            "label": manifest["dataset"]["label"],
            "palpate": str(manifest.get("palpate", "")),
            "created": str(manifest.get("created", "")),
            "cells": len(self._keys),
            "finished": len(finished & self.files.entries.keys()),
            "report": self.files.report is not None,
        }

    def cells(self, query: Query) -> dict[str, Any]:
        """One page of the list of cells; reads the files of that page only, where it can.

        Raises:
            QueryError: no such column.
        """
        needs_files = query.names & cells.FROM_FILES
        rows = (self.whole_plan() if needs_files else self._plan).select(query)
        shown = rows[query.start : query.start + query.count]
        part = self._with_briefs(self._plan.take(shown), [self._keys[i] for i in shown.tolist()])
        page = part.shown(np.arange(len(shown)), replace(query, start=0))
        heads = self._plan.shown(shown[:0], query)["columns"]  # choices of the whole, not the page
        heads += page["columns"][len(heads) :]
        place = {"total": self._plan.total, "matched": len(rows), "start": query.start}
        return {**page, **place, "columns": heads}

    def whole_plan(self) -> Sheet:
        """The list of cells with what every file says."""
        return self._with_briefs(self._plan, self._keys)

    def _with_briefs(self, sheet: Sheet, keys: list[str]) -> Sheet:
        briefs = [self.brief(key) for key in keys]
        return cells.with_briefs(sheet, briefs, dense=self._dense)

    def brief(self, key: str) -> Brief:
        """What the files of one cell say in short; a damaged one is said, and stops nothing."""
        stamp = self.files.stamp(key)
        if stamp is None:
            return Brief(cells.NOT_RUN)
        known = self._briefs.get(key)
        if known is None or known[0] != stamp:
            known = stamp, self._read_brief(key)
            self._briefs[key] = known
        return known[1]

    def _read_brief(self, key: str) -> Brief:
        try:
            cell = self.files.cell(key)
            if cell.status != "ok":
                error = cell.error or {}
                said = f"{error.get('type', 'error')}: {error.get('message', '')}"
                return Brief(cells.FAILED, said)
            rows = self.files.rows(cell, COMPARED)
            found = outcomes(rows, cell.family, task=self.files.task)
            pictures = len(self.files.pictured(cell))
            clean = cell.family == "none"
            return cells.brief_of(found, pictures, clean=clean, dense=self._dense)
        except StoreError as error:
            return Brief(cells.DAMAGED, str(error))

    def head(self, key: str) -> dict[str, Any]:
        """What a cell is.

        Raises:
            Unknown: no such cell.
        """
        entry = self.files.entry(key)
        brief = self.brief(key)
        return {
            "key": key,
            "title": cells.title_of(entry),
            "family": entry["family"],
            "state": brief.state,
            "problem": brief.problem,
            "pictures": brief.pictures or 0,
        }

    def samples(self, key: str) -> Sheet:
        """The samples of a finished cell.

        Raises:
            Unknown: no such cell, or one that has no samples.
            StoreError: a damaged file.
        """
        cell = self._finished(key)
        task, pictured = self.files.task, self.files.pictured(cell)
        return samples_sheet(self._kept(cell), cell, task=task, pictured=pictured)

    def cases(self, key: str) -> list[tuple[str, int]]:
        """Sample and trial of the recorded worst cases, the worst first.

        Raises:
            Unknown: no such cell, or one that has no samples.
            StoreError: a damaged file.
        """
        return list(self.files.pictured(self._finished(key)))

    def case(self, key: str, sample: str, *, trial: int) -> list[dict[str, str]]:
        """The pictures of one sample and trial, with their texts; empty where none was kept.

        Raises:
            Unknown: no such cell or case.
            StoreError: a damaged file.
        """
        cell = self._finished(key)
        rows = self._kept(cell)
        own = np.flatnonzero((rows["sample"] == sample) & (rows["trial"] == trial))
        if not len(own):
            raise Unknown(f"cell {key[:12]} has no sample {sample[:80]!r} in trial {trial}")
        number = self.files.pictured(cell).get((sample, trial))
        if number is None:
            return []
        said = answer_words(rows, int(own[0]), self.files.task)
        shown = Shown(sample, self._clean_answer(cell, sample), said, self.files.bounds)
        try:
            made = pictures(self.files.images(cell), number, shown=shown)
        except (KeyError, IndexError, ValueError) as error:
            raise StoreError(f"images/{key}.npz: cannot be shown: {error}") from None
        return [vars(picture) for picture in made]

    def _clean_answer(self, cell: CellRecord, sample: str) -> str:
        clean = self.files.clean_of(cell)
        if clean is None or not (there := np.flatnonzero(clean["sample"] == sample)).size:
            return "not known"
        return answer_words(clean, int(there[0]), self.files.task)

    def _kept(self, cell: CellRecord) -> Rows:
        if cell.key not in self._rows:
            self._rows[cell.key] = self.files.rows(cell)
        self._rows.move_to_end(cell.key)
        while len(self._rows) > _KEPT:
            self._rows.popitem(last=False)
        return self._rows[cell.key]

    def _finished(self, key: str) -> CellRecord:
        self.files.entry(key)
        brief = self.brief(key)
        if brief.state in (cells.NOT_RUN, cells.FAILED):
            raise Unknown(f"cell {key[:12]} has no samples: {brief.state} {brief.problem}".strip())
        return self.files.cell(key)
