"""`judge(record, gates)`: does the run keep its promises, for sure?

A gate looks at the end of the interval, never at the value: `at_least` at the lower, `at_most` at
the upper end. What was not measured keeps no promise: a gate that matched no cell, a cell that has
not finished, a value without an interval, all fail.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from palpate import registry
from palpate.errors import UnknownComponent, nearest
from palpate.record import Record
from palpate.statistics._check import named_entry
from palpate.statistics._gate import Gate, Gates, load_gates, parse_gates, short
from palpate.statistics.cells import ALL_ATTACKS
from palpate.statistics.checks import checks
from palpate.statistics.summary import Row, Summary, summarise
from palpate.statistics.table import Table

__all__ = ["Gate", "Gates", "Judged", "Judgement", "judge", "load_gates", "parse_gates"]

SELF_CHECKS = "no check of the audit on itself failed"
FINISHED = "every planned cell finished"


@dataclass(frozen=True, slots=True)
class Judged:
    """One gate on one cell.

    Attributes:
        gate: in words.
        status: "pass" or "fail".
        cell: in words; empty where none matched.
        value: of the metric; None where it is undefined.
        low: lower end of its interval.
        high: upper end.
        evidence: the numbers behind the status, or what is missing.
    """

    gate: str
    status: Literal["pass", "fail"]
    cell: str
    value: float | None
    low: float | None
    high: float | None
    evidence: str


@dataclass(frozen=True)
class Judgement(Table[Judged]):
    """All gates, in the order of the file.

    Attributes:
        unfinished: planned cells of the run without a result, in words.
    """

    unfinished: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate passed on every cell that it matched."""
        return all(row.status == "pass" for row in self.rows)


def judge(record: Record, gates: Gates) -> Judgement:
    """Hold a run against its gates.

    Args:
        record: the run; unfinished cells that a gate speaks of fail it.
        gates: from `load_gates` or `parse_gates`.

    Raises:
        UnknownComponent: a metric or perturbation that neither the run nor Palpate knows.
    """
    for gate in gates.gates:
        _check_names(gate, record)
    names = sorted({gate.metric.partition("[")[0] for gate in gates.gates})
    asked = record.manifest["config"].get("metrics") or ()
    own = [spec for spec in asked if not isinstance(spec, str) and spec["name"] in names]
    config = {**record.manifest["config"], "metrics": [*names, *own]}
    summary = summarise(dataclasses.replace(record, manifest={**record.manifest, "config": config}))
    unfinished = _unfinished(record)
    rows = [row for gate in gates.gates for row in _judged(gate, summary.rows, record, unfinished)]
    if gates.self_checks:
        rows += _self_checks(record, summary)
    return Judgement(tuple(rows), tuple(named_entry(entry) for entry in unfinished))


def _check_names(gate: Gate, record: Record) -> None:
    base = gate.metric.partition("[")[0]
    if base not in (metrics := registry.names("metrics")):
        raise UnknownComponent(f"no metric named {base!r}; {nearest(base, metrics)}")
    planned = {entry["perturbation"] for entry in record.manifest["plan"]}
    own = {name for family in registry.PERTURBATIONS for name in registry.names(family)}
    known = {*planned, *own, "none", ALL_ATTACKS}
    if gate.perturbation is not None and gate.perturbation not in known:
        raise UnknownComponent(
            f"no perturbation named {gate.perturbation!r}; {nearest(gate.perturbation, known)}"
        )


def _unfinished(record: Record) -> list[dict[str, Any]]:
    good = {cell.key for cell in record.cells if cell.status == "ok" and cell.samples}
    return [entry for entry in record.manifest["plan"] if entry["key"] not in good]


def _judged(
    gate: Gate, rows: tuple[Row, ...], record: Record, unfinished: list[dict[str, Any]]
) -> Iterator[Judged]:
    lost = [entry for entry in unfinished if _speaks_of(gate, entry, part=True)]
    for entry in lost:
        why = "the cell has no result: it failed, or was not run"
        yield Judged(gate.text, "fail", named_entry(entry), None, None, None, why)
    keys = {entry["key"] for entry in lost}
    found = [row for row in rows if row.cell not in keys and _matches(gate, row)]
    for row in found:
        yield _one(gate, row)
    if not found and not lost:
        yield Judged(gate.text, "fail", "", None, None, None, _no_match(gate, rows, record))


def _matches(gate: Gate, row: Row) -> bool:
    setting = orjson.loads(row.setting)
    entry = {**dataclasses.asdict(row), "setting": setting}
    whole = gate.family is not None and row.perturbation == ALL_ATTACKS
    return row.metric == gate.metric and not whole and _speaks_of(gate, entry)


def _speaks_of(gate: Gate, entry: Mapping[str, Any], *, part: bool = False) -> bool:
    """Whether a gate is about a cell, or about a whole that it is part of, whatever the metric."""
    if gate.family is not None:
        right = entry["family"] == gate.family
    elif gate.perturbation == ALL_ATTACKS and part:
        right = entry["family"] == "attacks"
    else:
        right = entry["perturbation"] == gate.perturbation
    return (
        right
        and gate.target in (None, entry["target"])
        and gate.defence in (None, entry["defence"])
        and all(
            name in entry["setting"] and _equal(wanted, entry["setting"][name])
            for name, wanted in gate.where.items()
        )
    )


def _equal(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(wanted, found, rel_tol=1e-9)
    return bool(wanted == found)


def _one(gate: Gate, row: Row) -> Judged:
    cell = named_entry({**dataclasses.asdict(row), "setting": orjson.loads(row.setting)})
    broken: list[str] = []
    if row.value is None or row.low is None or row.high is None:
        broken.append(f"undefined: {row.note or row.method}" if row.value is None else row.method)
    else:
        if gate.at_least is not None and not row.low >= gate.at_least:
            broken.append(f"lower end {row.low:.4g} is below {gate.at_least:g}")
        if gate.at_most is not None and not row.high <= gate.at_most:
            broken.append(f"upper end {row.high:.4g} is above {gate.at_most:g}")
    parts = [_numbers(row), *broken] if row.value is not None else broken
    if row.note and row.value is not None:
        parts.append(row.note)
    status = "fail" if broken else "pass"
    return Judged(gate.text, status, cell, row.value, row.low, row.high, "; ".join(parts))


def _numbers(row: Row) -> str:
    if row.low is None or row.high is None:
        return f"{row.value:.4g} without an interval"
    return (
        f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}], {row.n} rows worth {row.units:.4g} units"
    )


def _no_match(gate: Gate, rows: tuple[Row, ...], record: Record) -> str:
    """What the run has instead, so that a typing error shows."""
    plan = record.manifest["plan"]
    near = [e for e in plan if e["perturbation"] == gate.perturbation or e["family"] == gate.family]
    if gate.perturbation != ALL_ATTACKS and not near:
        names = sorted({e["perturbation"] for e in plan} - {"none"})
        return f"matched no cell: the run has {', '.join(names) or 'no perturbation'}"
    for name in ("target", "defence"):
        wanted, has = getattr(gate, name), sorted({e[name] for e in plan})
        if wanted is not None and wanted not in has:
            return f"matched no cell: the run has {name} {', '.join(has)}"
    for name, wanted in gate.where.items():
        found = [e["setting"][name] for e in near if name in e["setting"]]
        if near and not any(_equal(wanted, value) for value in found):
            shown = ", ".join(dict.fromkeys(short(value) for value in found)) or "no such parameter"
            return f"matched no cell: {name} is {shown} in the run"
    if not any(row.metric == gate.metric for row in rows):
        return f"matched no cell: {gate.metric} does not apply to this task, or has no such class"
    return f"matched no cell: {gate.metric} does not apply there, or no cell has all of this"


def _self_checks(record: Record, summary: Summary) -> list[Judged]:
    examined = checks(record, summary=summary)
    failed = [c for c in examined if c.status == "fail" and c.check != FINISHED]
    if not failed:
        evidence = f"{sum(c.status != 'not run' for c in examined)} checks"
        return [Judged(SELF_CHECKS, "pass", "", None, None, None, evidence)]
    return [
        Judged(SELF_CHECKS, "fail", c.cell, None, None, None, f"{c.check}: {c.evidence}")
        for c in failed
    ]
