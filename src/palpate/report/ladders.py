"""Rows of the summary arranged as dose ladders: one perturbation, rising doses, all models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from palpate import registry
from palpate.report import words
from palpate.statistics.cells import ALL_ATTACKS
from palpate.statistics.summary import Row, Summary

Doses = tuple[tuple[Any, str], ...]


@dataclass(frozen=True)
class Ladder:
    """One perturbation at rising doses.

    Attributes:
        family: perturbation family.
        perturbation: component name.
        title: for headings, with what tells it from other ladders of the same component.
        metric: the one shown.
        dose: name of the dose; None where there is none.
        scale: the dose with its norm, if it has one: ladders of one scale can share a table.
        doses: value and text, rising.
        clean: per model, the clean row of the comparable metric.
        lines: per model, one row per dose; None where the cell is missing.
    """

    family: str
    perturbation: str
    title: str
    metric: str
    dose: str | None
    scale: str
    doses: Doses
    clean: Mapping[str, Row | None]
    lines: Mapping[str, tuple[Row | None, ...]]


def model_of(row: Row) -> str:
    """Name of a model with its defence."""
    return row.target if row.defence == "none" else f"{row.target} + {row.defence}"


def models_of(summary: Summary) -> list[str]:
    """All models, in the order of the plan."""
    return list(dict.fromkeys(model_of(row) for row in summary.rows))


def main_metric(family: str, kind: str) -> str:
    """The metric that charts show: score, or robust accuracy under attack."""
    if kind in ("segmentation", "prompted_segmentation"):
        return "dice"
    return "robust_accuracy" if family == "attacks" else "accuracy"


def ladders(summary: Summary, kind: str) -> list[Ladder]:
    """All ladders, by family, then in the order of the plan.

    Args:
        summary: of the run.
        kind: of the task.
    """
    clean_metric = main_metric("none", kind)
    clean = {model_of(r): r for r in summary.find(family="none", metric=clean_metric)}
    models = models_of(summary)
    found: list[Ladder] = []
    for family in words.FAMILIES:
        metric = main_metric(family, kind)
        rows = [r for r in summary.rows if r.family == family and r.metric == metric]
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            setting = _setting(row)
            dose = words.dose_of(setting)
            rest = {k: v for k, v in setting.items() if k != dose}
            if dose in words.FAULT_DOSES:
                rest.pop("trials", None)  # more of the same draws
            if dose == "bit_error_rate":
                rest.pop("flips", None)  # the rate decides their number
            if row.perturbation == ALL_ATTACKS:
                rest.pop("attacks", None)
            groups.setdefault((row.perturbation, registry.canonical(rest)), []).append(row)
        for (name, rest), members in groups.items():
            others = [r for n, r in groups if n == name]
            title = _title(name, rest, others, family)
            found.append(_ladder(members, title, models, clean, metric))
    return found


def _ladder(
    members: list[Row],
    title: str,
    models: list[str],
    clean: Mapping[str, Row],
    metric: str,
) -> Ladder:
    settings = [_setting(row) for row in members]
    dose = words.dose_of(settings[0])
    norm = str(settings[0].get("norm", ""))
    values = sorted({s[dose] for s in settings}) if dose else [None]
    place = {
        (model_of(row), setting[dose] if dose else None): row
        for row, setting in zip(members, settings, strict=True)
    }
    return Ladder(
        family=members[0].family,
        perturbation=members[0].perturbation,
        title=title,
        metric=metric,
        dose=dose,
        scale=words.dose_title(dose) + (f" ({words.NORMS.get(norm, norm)})" if norm else ""),
        doses=tuple((v, words.dose_text(dose, v) if dose else "as planned") for v in values),
        clean={m: clean.get(m) for m in models},
        lines={m: tuple(place.get((m, v)) for v in values) for m in models},
    )


def several_attacks(ladder: Ladder) -> bool:
    """Whether a ladder is of one component, or its "all attacks" are more than a single one."""
    rows = (r for line in ladder.lines.values() for r in line if r)
    single = (len(_setting(r).get("attacks", ())) < 2 for r in rows)
    return ladder.perturbation != ALL_ATTACKS or not all(single)


def _title(name: str, rest: str, others: list[str], family: str) -> str:
    own: dict[str, Any] = orjson.loads(rest)
    shown = {"norm"} if family == "attacks" else set[str]()
    for other in (orjson.loads(o) for o in others):
        shown |= {k for k in own.keys() | other.keys() if own.get(k) != other.get(k)}
    detail = words.setting_words({k: own[k] for k in sorted(shown) if k in own})
    return f"{words.spaced(name)} ({detail})" if detail else words.spaced(name)


def _setting(row: Row) -> dict[str, Any]:
    return orjson.loads(row.setting)
