"""What was not tested, where the numbers come from, and what the words mean."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from palpate import registry
from palpate.record import Record
from palpate.report import words
from palpate.statistics.cells import Cells
from palpate.storage import Storage

_OUT_OF_SCOPE: Final = (
    ("data poisoning and backdoors", "happen during training, which this audit does not see"),
    ("privacy: membership inference, model extraction", "another question than reliability"),
    ("fairness between patient groups", "needs group labels, and is not measured here"),
    ("clinical benefit and harm", "a matter of a clinical study, not of a bench test"),
)

_WORDS: Final = (
    ("case, sample", "A patient or study (the unit of independence); one model input."),
    (
        "interval",
        (
            "Range that holds the true value at the stated confidence, if the cases are a random"
            " draw. Wilson's for shares, bootstrap by case (BCa) otherwise. Rows that are not"
            " independent (several images of a patient, one fault on all images) count as fewer"
            " units. No interval of a mean, such as Dice, holds what no case showed: of a failure"
            " rarer than 3 in the number of cases (Hanley, Lippman-Hand 1983) nothing may have been"
            " seen, and the lower end is then too high."
        ),
    ),
    (
        "epsilon, norm",
        (
            "Largest allowed change of the input, in units of the bounds; L∞ is the largest change"
            " of a pixel, L2 the root of the summed squares."
        ),
    ),
    ("severity", "0 (nothing) to 5; the physical setting is in the component's documentation."),
    ("coverage, fill", "Share of the image hidden; the value put there."),
    ("all attacks", "Worst case per sample over all attacks of the same norm and epsilon."),
    ("fault, trial", "One or more flipped bits, from a fault-free model each time."),
    ("golden", "The fault-free output that a fault is compared with (not the reference)."),
    ("masked", "The fault left the decision as it was."),
    (
        "p, Holm",
        (
            "Exact sign test on the same cases (McNemar's, for one 0/1 score per case); adjusted"
            " for the number of comparisons of its table by Holm's method."
        ),
    ),
)


def not_tested(record: Record, *, by_site: bool = False) -> list[tuple[str, str]]:
    """What and why: families, combinations, and threats that lie outside.

    Args:
        record: the run.
        by_site: whether the report shows several sites apart.
    """
    plan = record.manifest["plan"]
    families = {entry["family"] for entry in plan}
    found = [
        (title, "not part of this audit")
        for family, title in words.FAMILIES.items()
        if family not in families
    ]
    for row in record.manifest.get("not_testable") or []:
        setting = row.get("setting") or {}
        detail = words.setting_words(setting) if isinstance(setting, Mapping) else str(setting)
        what = f"{words.spaced(str(row.get('perturbation', '')))} on {row.get('target', '')}"
        found.append((f"{what} ({detail})" if detail else what, str(row.get("reason", ""))))
    kind, known = Cells(record).task.kind, registry.names("metrics")
    for asked in record.manifest["config"].get("metrics") or ():
        name = asked if isinstance(asked, str) else str(asked.get("name", ""))
        if name in known and kind not in registry.load("metrics", name).tasks:
            found.append((words.metric_name(name), f"no measure of {words.spaced(kind)}"))
    if all(entry["defence"] == "none" for entry in plan):
        found.append(("defences", "no defence was part of this audit"))
    if by_site:
        found.append(("drift to other sites, devices and years", "these data hold their own alone"))
    else:
        found.append(("drift between sites, devices and years", "needs data from each of them"))
    return [*found, *_OUT_OF_SCOPE]


def provenance(record: Record) -> list[tuple[str, str]]:
    """Name and value of everything that made these numbers."""
    manifest = record.manifest
    config, data, env = manifest["config"], manifest["dataset"], manifest.get("environment") or {}
    return [
        ("command", str(manifest.get("command", ""))),
        ("created", str(manifest.get("created", ""))),
        ("Palpate", str(manifest.get("palpate", ""))),
        ("audit identity", str(manifest.get("identity", ""))),
        ("seed", str(config.get("seed", ""))),
        ("storage", Storage.parse(config.get("storage", "float32")).words),
        ("dataset", f"{data['label']}, SHA-256 {data.get('digest', 'unknown')}"),
        ("licence of the data", str(data.get("licence") or "not stated")),
        ("attribution", str(data.get("attribution") or "not stated")),
        *((f"model {t['label']}", _model(t)) for t in manifest.get("targets") or []),
        *((k, str(env[k])) for k in ("python", "platform", "device", "threads") if k in env),
        ("versions", ", ".join(f"{k} {v}" for k, v in (env.get("versions") or {}).items())),
        ("audit configuration", _plain(config)),
    ]


def _model(target: Mapping[str, Any]) -> str:
    size = words.count(target.get("parameters") or 0)
    source = _plain(target.get("source"))
    return f"{size} parameters, SHA-256 {target.get('digest', 'unknown')}, source {source}"


def glossary() -> list[tuple[str, str]]:
    """Words of this report and the formulas of its metrics, in alphabetical order."""
    metrics = [
        (words.metric_name(name), registry.load("metrics", name).meaning)
        for name in registry.names("metrics")
    ]
    return sorted([*metrics, *_WORDS], key=lambda pair: pair[0].lower())


def _plain(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
