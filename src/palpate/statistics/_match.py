"""Which cells of two runs speak of the same thing, and why the others have no partner."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from palpate import registry
from palpate.errors import DataError, TargetError
from palpate.record import CellRecord, Record
from palpate.statistics._check import named_entry

Side = Literal["before", "after"]
Place = tuple[str, str, str, str]
"""Target (as the later run calls it), defence, perturbation and canonical setting."""

Done = dict[tuple[str, str, str], CellRecord]


@dataclass(frozen=True, slots=True)
class Apart:
    """Something that could not be compared.

    Attributes:
        side: the run that has it.
        cell: in words.
        why: what is missing.
        unfinished: whether it was planned in this run, but has no result to compare.
    """

    side: Side
    cell: str
    why: str
    unfinished: bool = False


@dataclass(frozen=True)
class Matched:
    """Two runs, cell by cell.

    Attributes:
        pairs: earlier and later cell.
        apart: what has no partner, earlier run first.
        notes: what a reader must know of the two runs.
    """

    pairs: tuple[tuple[CellRecord, CellRecord], ...]
    apart: tuple[Apart, ...]
    notes: tuple[str, ...]


def matched(before: Record, after: Record) -> Matched:
    """Pair finished cells of the same model name, defence, perturbation and setting.

    Args:
        before: the earlier run.
        after: the later run.

    Raises:
        DataError: the runs rest on different data or tasks.
        TargetError: no model name occurs in both, and at least one run has several.
    """
    _same_data(before, after)
    names = _names(before, after)
    old, new = _planned(before, names), _planned(after, {})
    done = _done(before), _done(after)
    pairs = [
        (done[0][_identity(old[place])], done[1][_identity(entry)])
        for place, entry in new.items()
        if place in old and not _why(old[place], done[0]) and not _why(entry, done[1])
    ]
    apart = (
        *_apart("before", old, new, done=done, names=set(names)),
        *_apart("after", new, old, done=done[::-1], names=set(names.values())),
    )
    return Matched(tuple(pairs), apart, tuple(_notes(before, after, names)))


def _done(record: Record) -> Done:
    return {(c.key, c.target, c.defence): c for c in record.cells}


def _identity(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Models with the same weights share the key of their cells, but not their name."""
    return entry["key"], entry["target"], entry["defence"]


def _same_data(before: Record, after: Record) -> None:
    old, new = before.manifest["dataset"], after.manifest["dataset"]
    if old["digest"] != new["digest"]:
        raise DataError(
            f"expected two runs on the same data, got {_data(before)} and {_data(after)}; audit"
            " both models on the same dataset, split and limit"
        )
    if old["task"] != new["task"]:
        raise DataError(f"expected two runs of the same task, got {old['task']} and {new['task']}")


def _data(record: Record) -> str:
    data = record.manifest["dataset"]
    return (
        f"{data['label']} ({data['samples']} samples, digest {data['digest'][:12]}) in"
        f" {record.folder}"
    )


def _names(before: Record, after: Record) -> dict[str, str]:
    """Model names of the earlier run -> the same model's name in the later one."""
    old, new = ([t["label"] for t in r.manifest["targets"]] for r in (before, after))
    both = [name for name in old if name in new]
    if both:
        return {name: name for name in both}
    if len(old) == len(new) == 1:
        return {old[0]: new[0]}
    raise TargetError(
        f"expected a model name that both runs have, got {', '.join(old)} in {before.folder} and"
        f" {', '.join(new)} in {after.folder}; give them the same label in the audit files"
    )


def _planned(record: Record, names: dict[str, str]) -> dict[Place, dict[str, Any]]:
    return {
        (
            str(names.get(entry["target"], entry["target"])),
            entry["defence"],
            entry["perturbation"],
            registry.canonical(entry["setting"]),
        ): entry
        for entry in record.manifest["plan"]
    }


def _why(entry: dict[str, Any], done: Done) -> str:
    """Why a planned cell has no result; empty where it has one."""
    cell = done.get(_identity(entry))
    if cell is None:
        return "not run yet"
    if cell.status != "ok" or not cell.samples:
        return f"failed: {(cell.error or {}).get('type', 'no samples')}"
    return ""


def _apart(
    side: Side,
    own: dict[Place, dict[str, Any]],
    other: dict[Place, dict[str, Any]],
    *,
    done: tuple[Done, ...],
    names: set[str],
) -> Iterator[Apart]:
    near = {place[:3] for place in other}
    for place, entry in own.items():
        why = _why(entry, done[0])
        unfinished = bool(why)
        if entry["target"] not in names:
            why = "the other run has no model of this name"
        elif place not in other:
            why = (
                "in the other run with other settings only"
                if place[:3] in near
                else "not part of the other run"
            )
        elif not why and (lacking := _why(other[place], done[1])):
            why = f"{lacking} in the other run"
        if why:
            yield Apart(side, named_entry(entry), why, unfinished)


def _notes(before: Record, after: Record, names: dict[str, str]) -> Iterator[str]:
    for old, new in names.items():
        if old != new:
            yield f"{old} and {new} are compared as one model, since each run has only one"
    for key, meaning in (("seed", "random draws"), ("storage", "rounding of stored images")):
        old, new = (r.manifest["config"].get(key) for r in (before, after))
        if old != new:
            yield f"{key} {old} before and {new} after: the {meaning} differ"
