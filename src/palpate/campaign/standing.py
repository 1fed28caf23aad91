"""Where a run stands, from its files alone: on any machine that sees them, while it runs or not."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from palpate.campaign.claims import LAPSE, Claim, claims, now
from palpate.campaign.journal import entries
from palpate.errors import StoreError
from palpate.record import read_cell, read_json

Entry = Mapping[str, Any]
_RETRIED: Final = ("worker lost", "out of memory")


@dataclass(frozen=True)
class Failed:
    """A cell without a result; run again by the next run command."""

    target: str
    perturbation: str
    message: str


@dataclass(frozen=True)
class Held:
    """A claim on a unit that has not ended.

    Attributes:
        target: label of the model.
        perturbation: name.
        host: who has it; empty where the claim does not say.
        pid: process there.
        seconds: since it was claimed.
        silent: seconds since the last sign of life.
        stale: whether its process has ended, or has been silent for too long.
    """

    target: str
    perturbation: str
    host: str
    pid: int
    seconds: float
    silent: float
    stale: bool

    @property
    def words(self) -> str:
        """Which cell, and who has it."""
        who = f"{self.host} process {self.pid}" if self.host else "unknown"
        return f"{self.target} {self.perturbation} on {who}"


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        total: cells of the plan.
        ok: with a result.
        failed: whose last attempt failed.
        running: claims that live.
        stale: claims that do not; the next run takes them over.
        retries: times that a worker was lost or its memory was too small.
        seconds_left: estimate for the workers at work now; None where nothing is known.
    """

    total: int
    ok: int
    failed: tuple[Failed, ...]
    running: tuple[Held, ...]
    stale: tuple[Held, ...]
    retries: int
    seconds_left: float | None

    def lines(self) -> Iterator[str]:
        """What `palpate status` prints."""
        yield f"{self.ok} of {self.total} cells ok, {len(self.failed)} failed"
        for held in self.running:
            yield f"running: {held.words} for {_span(held.seconds)}"
        for held in self.stale:
            silent = _span(held.silent)
            yield f"stale: {held.words}, silent for {silent}; the next run takes it over"
        for failed in self.failed:
            yield f"failed: {failed.target} {failed.perturbation}: {failed.message}"
        if self.retries:
            yield f"retries: {self.retries}; the log folder has each"
        if self.ok < self.total:
            yield self._rest()

    def _rest(self) -> str:
        if not self.running:
            return "nothing runs; the same run command goes on"
        if self.seconds_left is None:
            return "rest: not known before a first cell has ended"
        return f"rest: about {_span(self.seconds_left)} with {len(self.running)} at work"


def standing(folder: Path) -> Standing:
    """Read where a run stands.

    Raises:
        StoreError: no run there.
    """
    plan = {entry["key"]: entry for entry in read_json(folder / "run.json")["plan"]}
    there = {path.stem for path in (folder / "cells").glob("*.json")}
    ok: set[str] = set()
    failed: list[Failed] = []
    for key in plan.keys() & there:
        try:
            cell = read_cell(folder / "cells" / f"{key}.json")
        except StoreError:
            continue  # damaged: counts as not run
        if cell.status == "ok":
            ok.add(key)
        else:
            message = (cell.error or {}).get("message", "")
            failed.append(Failed(plan[key]["target"], cell.perturbation, message))
    held = list(_held(folder, {key: e for key, e in plan.items() if key not in ok}))
    running = tuple(one for one in held if not one.stale)
    seconds, retries = _journal(folder, plan)
    return Standing(
        total=len(plan),
        ok=len(ok),
        failed=tuple(sorted(failed, key=lambda f: (f.target, f.perturbation))),
        running=running,
        stale=tuple(one for one in held if one.stale),
        retries=retries,
        seconds_left=_left(plan, ok, seconds, running),
    )


def _held(folder: Path, open_: Mapping[str, Entry]) -> Iterator[Held]:
    highest: dict[str, Claim] = {}
    for claim in claims(folder):
        known = highest.get(claim.unit)
        if known is None or known.generation < claim.generation:
            highest[claim.unit] = claim
    moment = now(folder) if highest else 0
    for claim in highest.values():
        entry = open_.get(claim.unit.partition(".")[0])
        if entry is None:
            continue  # its result is there, it is about to be removed
        silent = max(0.0, (moment - claim.touched) / 1e9)
        owner = claim.owner
        ended = owner is not None and owner.has_ended()
        yield Held(
            target=entry["target"],
            perturbation=entry["perturbation"],
            host="" if owner is None else owner.host,
            pid=0 if owner is None else owner.pid,
            seconds=max(0.0, (moment - (claim.began or claim.touched)) / 1e9),
            silent=silent,
            stale=ended or silent > LAPSE,
        )


def _journal(folder: Path, plan: Mapping[str, Entry]) -> tuple[dict[str, float], int]:
    """Seconds of every cell that has ended, its shards together; and how many retries."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    retries = 0
    for event in entries(folder):
        retries += event["event"] in _RETRIED
        key = str(event["unit"]).partition(".")[0]
        if event["event"] == "ok" and key in plan:
            seconds[key][event["unit"]] = event["seconds"]
    return {key: sum(parts.values()) for key, parts in seconds.items()}, retries


def _left(
    plan: Mapping[str, Entry],
    ok: set[str],
    seconds: Mapping[str, float],
    running: tuple[Held, ...],
) -> float | None:
    """What the pending cells will take, at the pace of their like."""
    took: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for key, value in seconds.items():
        for like in _likes(plan[key]):
            took[like].append(value)
    if not took:
        return None
    means = {like: fmean(values) for like, values in took.items()}
    pending = [entry for key, entry in plan.items() if key not in ok]
    whole = sum(next(means[like] for like in _likes(e) if like in means) for e in pending)
    return max(0.0, whole - sum(held.seconds for held in running)) / max(1, len(running))


def _likes(entry: Entry) -> tuple[tuple[str, ...], ...]:
    """The nearest first."""
    target, name, family = entry["target"], entry["perturbation"], entry["family"]
    return (target, name), (name,), ("family", family), ()


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
