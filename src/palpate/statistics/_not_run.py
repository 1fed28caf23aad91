"""Checks that this run did not make, and why: silence would read as a pass."""

from collections.abc import Iterator
from typing import Any

from palpate.record import Record
from palpate.statistics._check import GRADIENT_FREE, Check

_NEEDS_MORE = (
    (
        "attack converged (loss flat over the last steps)",
        "the record keeps scores, not loss curves; doubling the steps shows it",
    ),
    ("stable predictions in a small box", "no random points around the inputs were evaluated"),
    ("randomised output", "no input was sent twice"),
    ("10,000 random points in the ball", "no random search was run"),
    ("attack adapted to the defence", "a person must judge whether the attack fits the defence"),
    ("normalisation applied twice", "only the user knows the range that the model was trained on"),
)
_TRANSFER = frozenset({"transfer"})


def not_run(record: Record) -> Iterator[Check]:
    """Checks of the literature that the record cannot answer; only where attacks were planned."""
    plan = [entry for entry in record.manifest["plan"] if entry["family"] == "attacks"]
    if not plan:
        yield Check("attack quality", "not run", "", "the audit has no attacks")
        return
    names = {entry["perturbation"] for entry in plan}
    if not names & GRADIENT_FREE:
        why = "no attack without gradients in the audit: masked gradients would go unseen"
        yield Check("gradient-free attack not stronger than white-box", "not run", "", why)
    if not names & _TRANSFER:
        why = "no attack was carried over from another model"
        yield Check("transfer attack not stronger than white-box", "not run", "", why)
    low, high = record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    largest = max((float(e["setting"].get("epsilon") or 0.0) for e in plan), default=0.0)
    if largest < high - low:
        why = f"largest epsilon {largest:.4g} of a range of {high - low:g}"
        yield Check("unbounded attack reaches total failure", "not run", "", why)
    if not any(int(e["setting"].get("restarts") or 1) > 1 for e in plan):
        why = "no attack had several restarts; one start may be unlucky"
        yield Check("several random starts", "not run", "", why)
    if not any(_is_targeted(entry["setting"]) for entry in plan):
        yield Check("targeted attacks", "not run", "", "all attacks of this run are untargeted")
    for name, why in _NEEDS_MORE:
        yield Check(name, "not run", "", why)


def _is_targeted(setting: dict[str, Any]) -> bool:
    return setting.get("goal", "break") != "break" or bool(setting.get("targets"))
