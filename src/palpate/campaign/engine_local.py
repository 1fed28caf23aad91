"""On this machine: one cell after the other in this process, or several processes at once.

A process of its own loads data and models once, by the audit file, and is handed keys; it plans the
audit again and refuses to work for one that differs in anything. Threads are shared out evenly and
set, since processes that each take all cores slow each other down several times. A process that
dies takes no other with it: another one is started, and its unit is handed out again.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, cast, final

from typing_extensions import override

from palpate.campaign.crew import Crew
from palpate.campaign.engine import RETRIES, Engine, Losses, errand_of
from palpate.campaign.hand import Errand, Hand, cores
from palpate.campaign.unit import Ended, Unit
from palpate.errors import ConfigError, PalpateError, StoreError

_MOST: Final = 256


@final
class LocalEngine(Engine):
    """No ports and no services; what tests, notebooks and laptops use."""

    @override
    def run(self, units: Sequence[Unit], hand: Hand, crew: Crew) -> Iterator[Ended]:
        crew.check_options()
        if crew.workers > _MOST:
            raise ConfigError(f"workers: expected 1 to {_MOST}, got {crew.workers}")
        if crew.workers == 1 and not crew.gpus:
            yield from map(hand.attempt, units)
            return
        devices = _devices(crew)
        pool = _Pool(errand_of(hand, crew), crew, Losses(hand), deque(units), devices)
        try:
            yield from pool.run(min(crew.workers, len(units)))
        finally:
            pool.stop()


@dataclass
class _Seat:
    """One process at work.

    Attributes:
        number: of the worker.
        process: that runs.
        pipe: units go in, `Ended` comes out.
        unit: what it has in hand.
        ready: whether it has loaded.
    """

    number: int
    process: BaseProcess
    pipe: Connection
    unit: Unit | None = None
    ready: bool = False


@dataclass
class _Pool:
    """Processes that come and go, and the units that wait for them."""

    errand: Errand
    crew: Crew
    losses: Losses
    waiting: deque[Unit]
    devices: list[str]
    seats: list[_Seat] = field(default_factory=list[_Seat])
    failed_starts: int = 0

    def run(self, workers: int) -> Iterator[Ended]:
        for number in range(workers):
            self._start(number)
        while any(seat.unit for seat in self.seats) or self.waiting:
            ready = wait([seat.pipe for seat in self.seats])
            for seat in [seat for seat in self.seats if seat.pipe in ready]:
                ended = self._heard(seat)
                self._feed()
                if ended is not None:
                    yield ended

    def stop(self) -> None:
        """End all processes; what they had in hand is free for others."""
        for seat in self.seats:
            if seat.unit is None:
                seat.pipe.close()
            else:
                seat.process.terminate()
        for seat in self.seats:
            if seat.unit is None:
                seat.process.join(timeout=5)
                seat.process.kill()
            seat.process.join()
            if seat.unit is not None:
                self.losses.hand.claims.drop(seat.unit.name)
                home = seat.unit.home(self.losses.hand.worker.folder)
                for half in home.glob(f"*/.*.{seat.process.pid}.tmp"):  # as `write_atomic` names it
                    half.unlink(missing_ok=True)

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, cores() // self.crew.workers)
        device = self.devices[number % len(self.devices)] if self.devices else None
        arguments = (theirs, self.errand, threads, device)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self.seats.append(_Seat(number, process, ours))

    def _heard(self, seat: _Seat) -> Ended | None:
        """Take what a worker says; None where there is nothing to tell."""
        try:
            said = cast("Ended | PalpateError | None", seat.pipe.recv())
        except (EOFError, OSError):
            return self._lost(seat)
        if isinstance(said, PalpateError):
            raise said
        self.failed_starts, seat.ready, seat.unit = 0, True, None
        return said

    def _feed(self) -> None:
        """Give every idle worker a unit."""
        for seat in self.seats:
            if seat.ready and seat.unit is None and self.waiting:
                seat.unit = self.waiting.popleft()
                with suppress(OSError):  # it has died: the next look at the pipe says so
                    seat.pipe.send(seat.unit)

    def _lost(self, seat: _Seat) -> Ended | None:
        seat.process.join()
        self.seats.remove(seat)
        why = _cause(seat.process.exitcode)
        ended = None
        if not seat.ready:
            self.failed_starts += 1
            if self.failed_starts > RETRIES:
                raise StoreError(
                    f"expected {self.crew.workers} workers to start, lost {self.failed_starts}"
                    f" while they loaded data and models ({why}); run again, with fewer"
                )
        elif seat.unit is not None:
            next_ = self.losses.after(seat.unit, why)
            if isinstance(next_, Unit):
                self.waiting.append(next_)
            else:
                ended = next_
        if self.waiting:
            self._start(seat.number)
        return ended


def _serve(pipe: Connection, errand: Errand, threads: int, device: str | None) -> None:
    """Load once, then run what comes until nothing more does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops handing out work
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # read at the first use of a device
    try:
        hand = Hand.rebuilt(errand, threads=threads, gpu=device is not None)
        pipe.send(None)
        while True:
            pipe.send(hand.attempt(pipe.recv()))
    except PalpateError as error:
        pipe.send(error)
    except (EOFError, OSError):  # the parent has closed the pipe, or is gone
        return


def _devices(crew: Crew) -> list[str]:
    """What each worker may see of the GPUs, as CUDA_VISIBLE_DEVICES; empty for the CPU.

    Raises:
        ConfigError: more GPUs are asked for than there are.
    """
    import torch

    if not crew.gpus:
        return []
    count = torch.cuda.device_count()
    whole = max(1, int(crew.gpus))
    per_device = int(1 / crew.gpus + 1e-9) if crew.gpus < 1 else 1
    seats = count // whole * per_device
    if crew.workers > seats:
        raise ConfigError(
            f"gpus: expected at most what this machine has, {count}; got {crew.workers} workers"
            f" with {crew.gpus:g} each"
        )
    asked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = asked.split(",") if asked else [str(i) for i in range(count)]
    return [",".join(names[i : i + whole]) for i in range(0, count - whole + 1, whole)]


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"signal {name}" + (", out of memory?" if name == "SIGKILL" else "")
    return f"exit status {code}"
