"""Expected silent failures per year, from a rate of memory errors that the user gives.

| code name   | meaning                                               | symbol        |
|-------------|-------------------------------------------------------|---------------|
| `rate`      | failures in 10^9 device hours and 10^6 bits           | FIT per Mbit  |
| `hours`     | hours a year in which the weights lie in memory       | T             |
| `upsets`    | rate * Mbit * hours * devices / 10^9                  | lambda T      |
| `silent`    | upsets * share of critical bits                       | lambda_fail T |

A rate is never assumed: it depends on the memory, its altitude and its error correction. Errors
that pass an error correction hit several bits at once, so with it on the share of single critical
bits is a stand-in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from palpate.record import Record
from palpate.statistics.critical import Critical, critical_bits
from palpate.statistics.table import Table

_WHOLE = {"bits": "all", "tensors": [], "effect": "flip", "burst": 1, "words": 1}


@dataclass(frozen=True, slots=True)
class Upsets:
    """What a rate of memory errors means for one model.

    Attributes:
        target: label of the model, with its defence, and the storage format if not its own.
        ecc: whether the error correction is on.
        mbit: stored weights, in 10^6 bits.
        rate: FIT per Mbit as given; None where none was.
        upsets: bits upset per year; None without a rate.
        silent: expected silent failures per year: value and both ends of its interval.
        note: why there is no number, or what it rests on.
    """

    target: str
    ecc: bool
    mbit: float
    rate: float | None
    upsets: float | None
    silent: tuple[float, float, float] | None
    note: str


def upsets(record: Record, critical: Table[Critical] | None = None) -> Table[Upsets]:
    """Two rows, error correction off and on, for every model whose whole memory was drawn from.

    A model stored in two formats has rows for each: they differ in bits and in what these do.

    Args:
        record: the run.
        critical: of the same run, if known already.
    """
    given = record.manifest["config"].get("memory_errors") or {}
    known = critical_bits(record) if critical is None else critical
    best: dict[tuple[str, str], Critical] = {}
    for row in known.find(by="all", perturbation="weight_bit_flip"):
        setting = orjson.loads(row.setting)
        key = (row.target, setting.get("format", "stored"))
        if _is_whole(setting) and (key not in best or _width(row) < _width(best[key])):
            best[key] = row
    rows = [
        _row(row, name if fmt == "stored" else f"{name} ({fmt})", given, ecc=ecc)
        for (name, fmt), row in best.items()
        for ecc in (False, True)
    ]
    return Table(tuple(rows))


def _is_whole(setting: Mapping[str, Any]) -> bool:
    return all(setting.get(name, value) == value for name, value in _WHOLE.items())


def _width(row: Critical) -> float:
    ends = row.critical
    return 2.0 if ends.low is None or ends.high is None else ends.high - ends.low


def _row(row: Critical, name: str, given: Mapping[str, Any], *, ecc: bool) -> Upsets:
    key = "fit_per_mbit_ecc" if ecc else "fit_per_mbit"
    rate, mbit, counted = given.get(key), row.bits / 1e6, row.count()
    if rate is None or counted is None:
        why = f"no rate given (memory_errors.{key})" if rate is None else "no share known"
        return Upsets(name, ecc, mbit, rate, None, None, why)
    hours, devices = given["hours_per_year"], given["devices"]
    number = rate * mbit * hours * devices / 1e9
    value, low, high = (number * bits / row.bits for bits in counted)
    note = f"{hours:g} hours a year on {devices:g} device{'' if devices == 1 else 's'}"
    return Upsets(name, ecc, mbit, rate, number, (value, low, high), note)
