"""The probes of a run: what `palpate.campaign.probe` measured on a few samples of every model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palpate.errors import StoreError
from palpate.record import Record, read_json


@dataclass(frozen=True)
class Probed:
    """One target behind one defence.

    Attributes:
        model: label, with its defence.
        found: plain numbers; empty where there are none.
        why_not: why there are none.
    """

    model: str
    found: Mapping[str, Any]
    why_not: str = ""


def probes_of(record: Record) -> list[Probed]:
    """One per target and defence of the plan; runs of older versions planned none."""
    planned = record.manifest.get("probes") or []
    config = record.manifest["config"]
    read: list[Probed] = []
    for entry in planned:
        model = entry["target"]
        if entry["defence"] != "none":
            model = f"{model} + {entry['defence']}"
        try:
            found = read_json(record.folder / "probes" / f"{entry['key']}.json")
        except StoreError:
            why = "probes are switched off" if not config.get("probes", True) else "not run yet"
            read.append(Probed(model, {}, why))
            continue
        if "error" in found:
            read.append(Probed(model, {}, f"the probe failed: {found['error']}"))
        else:
            read.append(Probed(model, found))
    return read
