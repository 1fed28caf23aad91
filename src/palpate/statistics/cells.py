"""Cells of a record, joined with the clean cell of the same target by sample id."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palpate import registry
from palpate.metrics.base import Rows, TaskInfo
from palpate.record import CellRecord, Columns, Record
from palpate.statistics.estimate import Design, codes

ALL_ATTACKS = "all attacks"
_KEPT_ROWS = 20_000  # about 5 MB a cell
_MASKS = ("region_overlap", "region_decided", "region_expected", "region_found")


@dataclass
class Cells:
    """Reads cells, and keeps the clean and the small ones; local to one call.

    Attributes:
        record: the run.
    """

    record: Record
    _small: dict[str, Rows] = field(default_factory=dict)
    _clean: dict[tuple[str, str, str], Columns | None] = field(default_factory=dict)

    @property
    def task(self) -> TaskInfo:
        """The dataset's task, as the manifest states it."""
        task = self.record.manifest["dataset"]["task"]
        return TaskInfo(task["kind"], tuple(task.get("classes") or ()), task.get("positive"))

    @property
    def confidence(self) -> float:
        """Level of every interval, from the audit file."""
        return float(
            (self.record.manifest["config"].get("statistics") or {}).get("confidence", 0.95)
        )

    @property
    def resamples(self) -> int:
        """Bootstrap draws, from the audit file."""
        return int((self.record.manifest["config"].get("statistics") or {}).get("resamples", 2000))

    def finished(self, *families: str) -> list[CellRecord]:
        """Cells without error that have samples, of these families (all by default)."""
        return [
            cell
            for cell in self.record.cells
            if cell.status == "ok" and cell.samples and (not families or cell.family in families)
        ]

    def clean_of(self, cell: CellRecord) -> Columns | None:
        """Columns of the clean cell of the same target, defence and dataset; None if missing."""
        group = group_of(cell)
        if group not in self._clean:
            found = [c for c in self.finished("none") if group_of(c) == group]
            self._clean[group] = self.record.samples(found[0]) if found else None
        return self._clean[group]

    def rows(self, cell: CellRecord) -> Rows:
        """Columns of a cell with those of the clean cell beside them; see `joined`."""
        if cell.key in self._small:
            return self._small[cell.key]
        clean = self.clean_of(cell)
        own = clean if cell.family == "none" and clean is not None else self.record.samples(cell)
        rows = joined(own, clean)
        if len(rows["sample"]) <= _KEPT_ROWS:
            self._small[cell.key] = rows
        return rows


def joined(own: Columns, clean: Columns | None) -> Rows:
    """Add the clean answer to the same sample, as `palpate.metrics.base.Rows` states it."""
    count, width = len(own["sample"]), own["reference"].shape[1]
    score = np.full(count, np.nan)
    decision = np.full((count, width), -1, dtype=np.int32)
    masks = {n: np.zeros_like(own[n]) for n in _MASKS if n in own}
    if clean is not None and len(clean["sample"]):
        order = np.argsort(clean["sample"], kind="stable")
        names = clean["sample"][order]
        place = np.minimum(np.searchsorted(names, own["sample"]), len(names) - 1)
        known, place = names[place] == own["sample"], order[place]
        score[known] = np.where(clean["finite"], clean["score"], 0.0)[place[known]]
        if clean["decision"].shape[1]:
            decision[known] = clean["decision"][place[known]]
        for name, values in masks.items():
            if clean[name].shape[1] == values.shape[1]:  # an older version has no columns
                values[known] = clean[name][place[known]]
    beside = {f"clean_{name}": values for name, values in masks.items()}
    return {**own, "clean_score": score, "clean_decision": decision, **beside}


def stacked(parts: Sequence[Rows]) -> Rows:
    """Rows of several cells below each other, as if they were trials of one."""
    return {name: _stack([p[name] for p in parts]) for name in parts[0]}


def worst_each(parts: Sequence[Rows]) -> Rows:
    """Of each sample the one row of all these cells with the lowest score."""
    rows = stacked(parts)
    score = np.where(rows["finite"].astype(bool), rows["score"], 0.0)
    order = np.lexsort((score, rows["sample"]))
    chosen = order[np.unique(rows["sample"][order], return_index=True)[1]]
    return {name: values[chosen] for name, values in rows.items()}


def _stack(columns: Sequence[np.ndarray]) -> np.ndarray:
    if columns[0].ndim == 1:
        return np.concatenate(columns)
    width = max(c.shape[1] for c in columns)
    fill = np.nan if columns[0].dtype.kind == "f" else -1
    wide = [np.pad(c, ((0, 0), (0, width - c.shape[1])), constant_values=fill) for c in columns]
    return np.concatenate(wide)


def design_of(rows: Rows, family: str, *, notes: Sequence[Mapping[str, Any]] = ()) -> Design:
    """How the rows were drawn: a random fault hits all cases, everything else belongs to a case."""
    crossed = family == "faults" and not is_chosen(notes)
    return Design(codes(rows["case"]), codes(rows["trial"]), crossed)


def is_chosen(notes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the faults were found by a search, which states their damage, and not drawn."""
    return any("damage" in note for note in notes)


def strata_of(
    rows: Rows, notes: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
    """Stratum number per row and share of the memory per stratum, where faults were dealt.

    The shares add up to less than 1 where some strata never got a trial. None where one stratum is
    the whole memory, or the faults were chosen.
    """
    if not notes or is_chosen(notes) or not all("stratum" in n and "share" in n for n in notes):
        return None
    shares = {str(n["stratum"]): float(n["share"]) for n in notes}
    if len(shares) == 1 and sum(shares.values()) > 1 - 1e-9:
        return None
    numbers = {name: i for i, name in enumerate(shares)}
    by_trial = np.array([numbers[str(n["stratum"])] for n in notes], dtype=np.intp)
    return by_trial[rows["trial"]], np.array(list(shares.values()))


def group_of(cell: CellRecord) -> tuple[str, str, str]:
    """Target, defence and dataset."""
    return cell.target, cell.defence, cell.dataset


def budget_of(cell: CellRecord) -> tuple[str, float] | None:
    """Norm and epsilon of an attack cell; None where it has no fixed budget."""
    return _budget(cell.family, cell.setting)


def _budget(family: str, setting: Mapping[str, Any]) -> tuple[str, float] | None:
    epsilon = setting.get("epsilon")
    if family != "attacks" or not isinstance(epsilon, int | float):
        return None
    return str(setting.get("norm", "linf")), float(epsilon)


def blends(perturbation: str, setting: Mapping[str, Any]) -> bool:
    """Whether an attack may move a pixel by twice its epsilon; see `palpate.attacks.fgsm`."""
    return perturbation == "fgsm" and setting.get("update") == "blend"


def spending(
    family: str, perturbation: str, setting: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Norm, epsilon and what else an attack may do, such as change words; None without epsilon."""
    budget = _budget(family, setting)
    if budget is None:
        return None
    more = {"tokens": setting["tokens"]} if "tokens" in setting else {}
    more |= {"update": "blend"} if blends(perturbation, setting) else {}
    return {"norm": budget[0], "epsilon": budget[1], **more}


def budgets(cells: Cells) -> Iterator[tuple[list[CellRecord], str, int]]:
    """Finished attack cells of one target and `spending`; setting; how many were planned."""
    groups: dict[tuple[tuple[str, str, str], str], list[CellRecord]] = {}
    for cell in cells.finished("attacks"):
        if (spent := spending(cell.family, cell.perturbation, cell.setting)) is not None:
            groups.setdefault((group_of(cell), registry.canonical(spent)), []).append(cell)
    planned = Counter(
        (
            (e["target"], e["defence"], e["dataset"]),
            registry.canonical(spending(e["family"], e["perturbation"], e["setting"])),
        )
        for e in cells.record.manifest["plan"]
    )
    for key, members in groups.items():
        names = sorted({c.perturbation for c in members})
        first = members[0]
        spent = spending(first.family, first.perturbation, first.setting) or {}
        yield members, registry.canonical({"attacks": names, **spent}), planned[key]
