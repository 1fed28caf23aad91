"""One file per running cell, so that two runs on one folder do no cell twice.

A claim is `claims/<unit>.<generation>`, made with `O_EXCL`; the highest generation holds the unit.
It is taken over by making the next generation, which only one can. Its owner touches it every few
seconds. It is abandoned when its process has ended (same machine), or when its time has stood
still while the observer's monotonic clock ran on: no clock that can jump decides alone. The result
is looked up again after claiming, since its peer may have finished in between; results are
idempotent, so that even two owners do no harm.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from palpate.campaign.owner import Owner
from palpate.errors import StoreError

BEAT: Final = 5.0
LAPSE: Final = 60.0
_CONFIRM: Final = 3 * BEAT


class Claim(NamedTuple):
    """A claim as found on disk.

    Attributes:
        path: its file.
        unit: name of the unit.
        generation: how often the unit was taken over.
        owner: who holds it; None where the file is empty or damaged.
        touched: its time, in nanoseconds of the file system's clock.
        began: when it was made, likewise; 0 where unknown.
    """

    path: Path
    unit: str
    generation: int
    owner: Owner | None
    touched: int
    began: int = 0


@dataclass
class Claims:
    """The claims of one run, as one process sees and makes them.

    Attributes:
        folder: run directory.
        owner: this process.
        clock: monotonic seconds.
    """

    folder: Path
    owner: Owner
    clock: Callable[[], float] = time.monotonic
    _watched: dict[Path, tuple[int, float]] = field(default_factory=dict)

    @contextmanager
    def hold(self, unit: str) -> Generator[bool]:
        """Claim a unit and keep the claim alive; yields False where somebody else has it.

        Raises:
            StoreError: the claim cannot be written.
        """
        path = self._taken(unit)
        if path is None:
            yield False
            return
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            stop.set()
            beating.join()
            _release(path)

    def holder(self, unit: str) -> Claim | None:
        """The claim that counts, if there is one."""
        found = [claim for claim in claims(self.folder) if claim.unit == unit]
        return max(found, key=lambda c: c.generation, default=None)

    def abandoned(self, claim: Claim) -> bool:
        """Whether the owner is gone: known at once on one machine, by watching elsewhere.

        A claim that looks old by the file system's clock is watched for some beats only, another
        for the whole lapse.
        """
        if claim.owner is not None and claim.owner.has_ended():
            return True
        moment = self.clock()
        touched, since = self._watched.get(claim.path, (claim.touched, moment))
        if touched != claim.touched:
            touched, since = claim.touched, moment
        self._watched[claim.path] = (touched, since)
        watched = moment - since
        if watched >= LAPSE:
            return True
        return watched >= _CONFIRM and now(self.folder) - claim.touched > LAPSE * 1e9

    def clear(self, claim: Claim) -> None:
        """Remove an abandoned claim, so that any process may make a new one."""
        mine = _path(self.folder, claim.unit, claim.generation + 1)
        if not self._made(mine):
            return  # a peer does it
        with contextlib.suppress(OSError):
            same = claim.path.stat().st_mtime_ns == claim.touched
            if same:  # else a peer has cleared it, and somebody has made a new one
                claim.path.unlink()
        mine.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what processes of this machine left behind when they were killed."""
        for claim in claims(self.folder):
            if claim.owner is not None and claim.owner.has_ended():
                self.clear(claim)

    def drop(self, unit: str) -> None:
        """Remove the claims that a process of this session, known to be gone, left on a unit."""
        for claim in claims(self.folder):
            ours = claim.owner is not None and claim.owner.session == self.owner.session
            if claim.unit == unit and ours:
                _release(claim.path)

    def _taken(self, unit: str) -> Path | None:
        """The new claim's file, or None where somebody else has it."""
        generation = 0
        path = _path(self.folder, unit, generation)
        if not self._made(path):
            held = self.holder(unit)
            if held is None or not self.abandoned(held):
                return None  # just released: the next look finds the result
            path = _path(self.folder, unit, held.generation + 1)
            if not self._made(path):
                return None
        return path

    def _made(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from None
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from None
        try:
            began = os.fstat(file).st_mtime_ns
            os.write(file, orjson.dumps({"owner": asdict(self.owner), "began": began}))
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(f"cannot write {path}: {error.strerror}") from None
        finally:
            os.close(file)
        return True


def claims(folder: Path) -> list[Claim]:
    """All claims of a run, those taken over included."""
    found: list[Claim] = []
    try:
        names = sorted(os.listdir(folder / "claims"))  # noqa: PTH208 - names, without a Path each
    except FileNotFoundError:
        return []
    for name in names:
        unit, _, generation = name.rpartition(".")
        if not unit or not generation.isdecimal():
            continue
        path = folder / "claims" / name
        with contextlib.suppress(OSError):  # released while we look
            touched = path.stat().st_mtime_ns
            owner, began = _content(path.read_bytes())
            found.append(Claim(path, unit, int(generation), owner, touched, began))
    return found


def now(folder: Path) -> int:
    """Nanoseconds of the clock that stamps the files; of this machine where it may not write."""
    probe = folder / "claims" / f".clock-{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime_ns
    except OSError:
        return time.time_ns()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _content(text: bytes) -> tuple[Owner | None, int]:
    try:
        data = orjson.loads(text)
        return Owner(**data["owner"]), int(data["began"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None, 0


def _path(folder: Path, unit: str, generation: int) -> Path:
    return folder / "claims" / f"{unit}.{generation}"


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):  # the result's own writing will say what is wrong
            os.utime(path)


def _release(path: Path) -> None:
    """Remove a claim, and those it was taken over from, the highest last."""
    stem, _, mine = path.name.rpartition(".")
    with contextlib.suppress(OSError):  # a read-only store has its say when results are written
        for generation in range(int(mine) + 1):
            (path.parent / f"{stem}.{generation}").unlink(missing_ok=True)
