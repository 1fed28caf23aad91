"""What may leave for a tracker: a list of what goes, so that anything new stays at home."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from palpate import registry
from palpate.record import Record
from palpate.statistics.origin import origin
from palpate.statistics.summary import Row, summarise

COLUMNS: Final = (
    "target",
    "defence",
    "family",
    "perturbation",
    "setting",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "units",
    "method",
)
"""Fields of a summary's row that go. Notes stay, as they may quote what a component said; so does
the dataset's label, which may be the name of a patient's folder (its digest goes)."""

_ORIGIN: Final = ("palpate", "identity", "created", "data_digest", "planned", "finished")
_LONGEST: Final = 200


@dataclass(frozen=True)
class Pack:
    """Everything that a tracker gets.

    Attributes:
        name: of the run, for people.
        origin: versions and digests, by name.
        metrics: value by key; `<key>.low` and `<key>.high` for the ends of its interval.
        rows: `COLUMNS` of every row of the summary that has a value.
    """

    name: str
    origin: dict[str, str]
    metrics: dict[str, float]
    rows: tuple[tuple[Any, ...], ...]


def packed(record: Record) -> Pack:
    """Choose what goes.

    Args:
        record: the run.
    """
    summary = summarise(record)
    known = [row for row in summary.rows if row.value is not None]
    source = origin(record)
    asked = (record.manifest["config"].get("dataset") or {}).get("name")
    data = asked if asked in registry.names("datasets") else "arrays"
    plain = {"palpate.dataset": data} | {f"palpate.{name}": str(source[name]) for name in _ORIGIN}
    models = {
        f"palpate.model.{i}": f"{k} {v}" for i, (k, v) in enumerate(source["targets"].items())
    }
    return Pack(
        name=f"{data} {source['identity'][:8]}",
        origin=plain | models | {"palpate.confidence": f"{summary.confidence:g}"},
        metrics=dict(_numbers(known)),
        rows=tuple(tuple(getattr(row, name) for name in COLUMNS) for row in known),
    )


def _numbers(rows: list[Row]) -> Iterator[tuple[str, float]]:
    taken: set[str] = set()
    for row in rows:
        key = _key(row)
        while key in taken:  # two names that differ only in characters that no tracker takes
            key += "_"
        taken.add(key)
        for suffix, value in (("", row.value), (".low", row.low), (".high", row.high)):
            if value is not None:
                yield key + suffix, float(value)


def _key(row: Row) -> str:
    """Model, disturbance, setting and metric, in characters that both trackers take."""
    model = row.target if row.defence == "none" else f"{row.target} + {row.defence}"
    setting = orjson.loads(row.setting)
    shown = " ".join(f"{k} {_short(v)}" for k, v in setting.items() if v not in (None, "", []))
    parts = (model, "clean" if row.family == "none" else row.perturbation, shown, row.metric)
    key = "/".join(_safe(part) for part in parts if part)
    if len(key) <= _LONGEST:
        return key
    return f"{key[: _LONGEST - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    return re.sub(r"[^\w\-. ]+", "_", text, flags=re.ASCII).strip()
