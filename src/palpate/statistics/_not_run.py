"""Checks that this run did not make, and why: silence would read as a pass."""

from collections.abc import Iterator, Sequence
from typing import Any

from palpate.record import Record
from palpate.statistics._check import Check
from palpate.statistics._model_checks import MODEL_CHECKS
from palpate.statistics._probe_checks import BLACK, PROBE_CHECKS, TRANSFER
from palpate.statistics._probes import Probed
from palpate.statistics._search_checks import CONVERGED, RISES

_OLD = "this run was made before the audit looked at models first"
_NEEDS_ATTACKS = (*PROBE_CHECKS, RISES, CONVERGED)


def not_run(record: Record, *, probes: Sequence[Probed], done: set[str]) -> Iterator[Check]:
    """Checks that have no row yet.

    Args:
        record: the run.
        probes: its probes.
        done: names of the checks that have a row.
    """
    plan = [entry for entry in record.manifest["plan"] if entry["family"] == "attacks"]
    if not plan:
        yield Check("attack quality", "not run", "", "the audit has no attacks")
    for name in (*MODEL_CHECKS, *_NEEDS_ATTACKS):
        if name not in done and (plan or name not in _NEEDS_ATTACKS):
            why = _why(name, probes, attacks=bool(plan))
            if why:
                yield Check(name, "not run", "", why)
    classes = record.manifest["dataset"]["task"].get("classes") or ()
    aimed = any(_is_targeted(entry["setting"]) for entry in plan)
    if plan and not aimed and len(classes) > 2:
        yield Check("targeted attacks", "not run", "", "all attacks of this run are untargeted")
    if any(entry["defence"] != "none" for entry in plan):
        why = "a person must judge whether the attack fits the defence"
        yield Check("attack adapted to the defence", "not run", "", why)


def _why(name: str, probes: Sequence[Probed], *, attacks: bool) -> str:
    """Empty where the check has no meaning in this run."""
    if name in (RISES, CONVERGED):
        return "no attack of this run says how its search went, or none left a sample standing"
    if not probes:
        return _OLD
    for probed in probes:
        if probed.why_not:
            return probed.why_not
    skipped = [p.found.get("attacks", {}).get("skipped", {}) for p in probes]
    key = {BLACK: "gradient_free"}.get(name, "")
    if reasons := [s[key] for s in skipped if key in s]:
        return str(reasons[0])
    if name == TRANSFER:
        return "there is no other model to carry an attack over from"
    return "the models give no gradients" if attacks else ""


def _is_targeted(setting: dict[str, Any]) -> bool:
    return setting.get("goal", "break") != "break" or bool(setting.get("targets"))
