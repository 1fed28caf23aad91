"""What the page shows of faults: rates by part of the memory, maps, critical bits, worst flips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from markupsafe import Markup

from palpate.record import Record
from palpate.report import figures, words
from palpate.report.tables import Entry, Grid
from palpate.statistics.critical import Critical, critical_bits
from palpate.statistics.estimate import Estimate
from palpate.statistics.strata import BETWEEN, Stratum, strata
from palpate.statistics.table import Table

_LAYERS = 24  # layers drawn per model; tables list up to _ROWS
_ROWS = 80
_PARTS = ("sign", "top exponent bit", "exponent", "mantissa", "integer")


@dataclass(frozen=True)
class FaultView:
    """The faults of one model under one fault model.

    Attributes:
        title: model and setting.
        whole: over all faults.
        parts: by bit field, the top exponent bit apart.
        groups: by role in the network, most silent changes first.
        layers: by layer, as listed.
        bits: by bit position.
        left_out: layers that are not listed.
        by_layer: drawing; None without layers.
        by_bit: drawing; None without bits.
        maps: heat maps of layer (or group) x bit field, where trials were dealt to them.
        critical: critical bits by group; empty where several bits flip at once.
        tensors: critical bits by tensor, as listed.
        critical_bits: over all; None likewise.
        worst: worst single faults.
    """

    title: str
    whole: Stratum
    parts: Sequence[Stratum]
    groups: Sequence[Stratum]
    layers: Sequence[Stratum]
    bits: Sequence[Stratum]
    left_out: int
    by_layer: Markup | None
    by_bit: Markup | None
    maps: tuple[Grid, ...]
    critical: Sequence[Critical]
    tensors: Sequence[Critical]
    critical_bits: Critical | None
    worst: Sequence[Any]


def fault_views(record: Record, worst: Table[Any]) -> list[FaultView]:
    """One view per finished fault cell, in the order of the plan.

    Cells of several random flips have none: their curves show them, and a flip among many says
    little about its place.

    Args:
        record: the run.
        worst: its worst single faults.
    """
    rows, known = strata(record), critical_bits(record)
    shown = [whole for whole in rows.find(by="all") if not _is_of_many(whole)]
    return [_view(whole, rows, known, worst) for whole in shown]


def _is_of_many(whole: Stratum) -> bool:
    setting = orjson.loads(whole.setting)
    many = setting.get("flips", 1) > 1 or bool(setting.get("bit_error_rate"))
    return many and not whole.chosen


def _view(
    whole: Stratum, rows: Table[Stratum], known: Table[Critical], worst: Table[Any]
) -> FaultView:
    same = {k: getattr(whole, k) for k in ("target", "perturbation", "setting")}
    layers = _most_silent(rows.find(by="layer", **same))
    bits = rows.find(by="bit", **same)
    setting = words.setting_words(orjson.loads(whole.setting))
    title = f"{whole.target} · {words.spaced(whole.perturbation)}, {setting}"
    drawn = layers[:_LAYERS]
    return FaultView(
        title=title,
        whole=whole,
        parts=sorted(rows.find(by="part", **same), key=lambda r: _order(r.name)),
        groups=_most_silent(rows.find(by="group", **same)),
        layers=layers[:_ROWS],
        bits=bits,
        left_out=max(0, len(layers) - _ROWS),
        by_layer=_dots(drawn, f"by layer, {title}", upright=False),
        by_bit=_dots(bits, f"by bit position, {title}", upright=True),
        maps=_maps(rows, same, title),
        critical=known.find(by="group", **same),
        tensors=known.find(by="tensor", **same)[:_ROWS],
        critical_bits=next(iter(known.find(by="all", **same)), None),
        worst=worst.find(**same),
    )


def _most_silent(rows: Sequence[Stratum]) -> list[Stratum]:
    return sorted(rows, key=lambda r: -(r.sdc.value or 0.0))


def _order(part: str) -> int:
    return _PARTS.index(part) if part in _PARTS else len(_PARTS)


def _maps(rows: Table[Stratum], same: dict[str, Any], title: str) -> tuple[Grid, ...]:
    scope = orjson.loads(same["setting"]).get("scope", "")
    if not scope.endswith("_field"):
        return ()  # trials fall where they fall, so most fields of a map would be empty
    whose = scope.removesuffix("_field")
    found = rows.find(by=f"{whose} part", **same)
    return tuple(
        _map(found, whose, verdict, f"{verdict.upper()} by {whose} and bit field: {title}")
        for verdict in ("sdc", "due")
    )


def _map(rows: Sequence[Stratum], whose: str, verdict: str, caption: str) -> Grid:
    place = {tuple(row.name.rsplit(BETWEEN, 1)): row for row in rows}
    columns = tuple(sorted({part for _, part in place}, key=_order))
    worst = {
        name: max(getattr(r, verdict).value or 0.0 for (n, _), r in place.items() if n == name)
        for name, _ in place
    }
    lines = [
        (name, tuple(_entry(place.get((name, part)), verdict) for part in columns))
        for name in sorted(worst, key=lambda name: -worst[name])
    ]
    return Grid(caption, whose, columns, tuple(lines))


def _entry(row: Stratum | None, verdict: str) -> Entry:
    if row is None:
        return Entry("–", "", None, "no such bits, or none drawn")
    found: Estimate = getattr(row, verdict)
    value, ends = words.number(found.value), words.interval(found.low, found.high)
    story = f"{row.name}: {verdict.upper()} {value} {ends}, {words.plural(row.trials, 'fault')}"
    return Entry(value, ends, found.value, story)


def _dots(rows: Sequence[Stratum], title: str, *, upright: bool) -> Markup | None:
    if not rows:
        return None
    # both ends of a path tell layers apart: the stage and block, and the module
    labels = [r.name if len(r.name) <= 36 else f"{r.name[:18]}…{r.name[-17:]}" for r in rows]
    return Markup(figures.dots(rows, title=title, labels=labels, upright=upright))
