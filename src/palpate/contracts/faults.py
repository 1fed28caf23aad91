"""Checks of faults."""

from typing import Any

import torch

from palpate.contracts.oracles import batch, expect, probe
from palpate.faults.base import Fault
from palpate.seeds import Seeds


def check_notes_name_the_sites(fault: Fault) -> None:
    """Every trial says what it hit, as plain data."""
    notes = _enter(fault, trial=0)[1]
    keys = {"tensor", "layer", "group", "index", "bit", "field", "part", "format"}
    keys |= {"before", "after"}
    sites: list[dict[str, Any]] = notes.get("sites", [])
    expect(bool(sites), f"{fault!r}: a trial without a site")
    for site in sites:
        expect(keys <= site.keys(), f"{fault!r}: a site lacks {sorted(keys - site.keys())}")


def check_exact_bits(fault: Fault) -> None:
    """A weight fault flips exactly the bits that it names, and nothing else."""
    for trial in range(3):
        flipped, notes = _enter(fault, trial=trial)
        named = sum(site["tensor"] in probe().module.state_dict() for site in notes["sites"])
        expect(flipped == named, f"{fault!r}: named {named} bits in weights, flipped {flipped}")


def check_trial_hangs_on_seed_only(fault: Fault) -> None:
    """The same trial hits the same site, whatever the batch."""
    small, large = _enter(fault, trial=1, count=1)[1], _enter(fault, trial=1, count=4)[1]
    expect(
        [s["tensor"] for s in small["sites"]] == [s["tensor"] for s in large["sites"]],
        f"{fault!r}: the site depends on the batch",
    )


def _enter(fault: Fault, *, trial: int, count: int = 2) -> tuple[int, dict[str, Any]]:
    target = probe()
    before = {k: v.clone() for k, v in target.module.state_dict().items()}
    fitted = fault.fitted(target, batch(4))
    with (
        fitted.prepared(target, batch(count)) as enter,
        enter(Seeds(cell="f", trial=trial)) as world,
    ):
        world.target.predict(world.batch)
        inside = target.module.state_dict()
        flipped = sum(_differing_bits(before[k], inside[k]) for k in before)
        return flipped, world.notes


def _differing_bits(a: torch.Tensor, b: torch.Tensor) -> int:
    views = [t.detach().clone().reshape(-1).view(torch.uint8).numpy() for t in (a, b)]
    return sum(int(x).bit_count() for x in (views[0] ^ views[1]).tolist())
