"""As a Slurm array over chunks of cells: no daemon, no ports, accounting as the site has it.

submitit writes the job files; keys go out with them, results come back as cell files only. A chunk
that is preempted or runs out of time is queued again by submitit; one that dies is looked through:
the cell that it held is handed out again at most twice, the others without blame. Whether a job is
still there is asked of `squeue`, since `sacct` needs an accounting database that small sites lack.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from typing_extensions import override

from palpate.campaign.crew import Crew
from palpate.campaign.engine import RETRIES, Engine, Losses, errand_of, extra
from palpate.campaign.hand import Errand, Hand, cores
from palpate.campaign.unit import Ended, Unit
from palpate.errors import ConfigError, PalpateError, StoreError

_PER_WORKER: Final = 4  # chunks, so that uneven cells even out
_ARRAY: Final = 1000  # Slurm's usual limit
_ALIVE: Final = (  # not over; the last is ours, for a controller that does not answer
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "UNKNOWN"),
)
_NAMES: Final = {  # ours -> submitit's
    "account": "slurm_account",
    "constraint": "slurm_constraint",
    "partition": "slurm_partition",
    "qos": "slurm_qos",
}
_OPTIONS: Final = ("chunks", "cluster", "cpus", "memory", "time", *_NAMES)


class Report(NamedTuple):
    """What a chunk says at its end; results are in the files.

    Attributes:
        busy: names of units that somebody else held.
        refused: why it could not start; empty if it could.
    """

    busy: tuple[str, ...] = ()
    refused: str = ""


class Chunk:
    """Some units, one after the other, in one job."""

    def __call__(self, errand: Errand, units: Sequence[Unit], *, gpu: bool) -> Report:
        """Load once, then run all."""
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get(_THREADS) or cores())
        try:
            hand = Hand.rebuilt(errand, threads=threads, gpu=gpu)
            ends = [hand.attempt(unit) for unit in units]
        except PalpateError as error:
            return Report(refused=str(error))
        return Report(busy=tuple(end.unit.name for end in ends if end.status == "busy"))

    def checkpoint(self, errand: Errand, units: Sequence[Unit], *, gpu: bool) -> Any:
        """Queued again with the same units; those that are done are passed over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, errand, units, gpu=gpu)


_THREADS: Final = "PALPATE_CHUNK_THREADS"


@final
class SlurmEngine(Engine):
    """Options: cluster (slurm, local), partition, account, qos, constraint, time, memory, cpus."""

    @override
    def run(self, units: Sequence[Unit], hand: Hand, crew: Crew) -> Iterator[Ended]:
        crew.check_options(*_OPTIONS)
        extra("submitit", "slurm")
        array = _Array(errand_of(hand, crew), crew, Losses(hand), list(units))
        try:
            while array.waiting:
                array.submit()
                yield from array.watch()
        finally:
            array.stop()


@dataclass
class _Job:
    """A chunk in the queue, and what of it has no result yet."""

    handle: Any
    units: list[Unit]


@dataclass
class _Array:
    """The jobs of one round after the other."""

    errand: Errand
    crew: Crew
    losses: Losses
    waiting: list[Unit]
    jobs: list[_Job] = field(default_factory=list[_Job])
    failed_starts: int = 0

    def submit(self) -> None:
        """Deal what waits to chunks and hand them to the queue.

        Raises:
            ConfigError: Slurm refuses them.
        """
        crew, gpu = self.crew, self.crew.gpus > 0
        wanted = crew.workers * (1 if _is_local(crew) else _PER_WORKER)
        count = min(crew.whole("chunks", wanted), _ARRAY, len(self.waiting))
        chunks = [self.waiting[i::count] for i in range(count)]
        executor = _executor(crew, self.folder)
        try:
            with executor.batch():
                handles = [executor.submit(Chunk(), self.errand, c, gpu=gpu) for c in chunks]
        except (OSError, RuntimeError) as error:
            last = str(error).strip().splitlines()[-1]
            raise ConfigError(f"slurm refused the jobs: {last}") from None
        self.jobs = [_Job(h, list(c)) for h, c in zip(handles, chunks, strict=True)]
        self.waiting = []

    def watch(self) -> Iterator[Ended]:
        """Yield what ends, until all jobs are over; what is to be done again waits then."""
        queue = _Queue(local=_is_local(self.crew))
        while self.jobs:
            time.sleep(queue.pause)
            # asked before the files are looked at, so that no result falls between the two
            over = queue.over([job.handle for job in self.jobs])
            for job, ended in zip(list(self.jobs), over, strict=True):
                yield from self._landed(job)
                if ended is not None:
                    self.jobs.remove(job)
                    yield from self._closed(job, ended)

    def stop(self) -> None:
        """Cancel what is left, as after an interrupt; remove the job files of a clean end."""
        for job in self.jobs:
            job.handle.cancel(check=False)
            for unit in job.units:
                self.losses.hand.claims.drop(unit.name)
        if not self.jobs and not self.waiting and not self.failed_starts:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run's jobs lie there
                self.folder.parent.rmdir()

    @property
    def folder(self) -> Path:
        """Where the job files lie."""
        return self.errand.folder / "jobs" / self.errand.session

    def _landed(self, job: _Job) -> Iterator[Ended]:
        """Units of a job that have a result by now."""
        hand = self.losses.hand
        homes = {unit.home(hand.worker.folder) / "cells" for unit in job.units}
        there = {home: _names(home) for home in homes}
        for unit in list(job.units):
            path = unit.result(hand.worker.folder)
            settled = hand.settled(unit) if path.name in there[path.parent] else None
            if settled is not None:
                job.units.remove(unit)
                yield settled

    def _closed(self, job: _Job, state: str) -> Iterator[Ended]:
        """Look through what a job that is over has left."""
        report = _report(job.handle)
        if report is not None and report.refused:
            raise StoreError(report.refused)
        hand, blamed = self.losses.hand, False
        for unit in job.units:
            claim = hand.claims.holder(unit.name)
            ours = claim is not None and claim.owner is not None
            if report is not None and unit.name in report.busy:
                yield Ended(unit, "busy")
            elif ours and claim.owner.session == self.errand.session:  # pyright: ignore
                blamed = True
                following = self.losses.after(unit, state, halve=state == "OUT_OF_MEMORY")
                if isinstance(following, Unit):
                    self.waiting.append(following)
                else:
                    yield following
            else:
                self.waiting.append(unit)
        if not job.units or blamed:
            return
        self.failed_starts += 1
        if self.failed_starts > RETRIES:
            raise StoreError(
                f"expected jobs to start, lost {self.failed_starts} while they loaded data and"
                f" models ({state}); their output is in {self.folder}"
            )


@dataclass
class _Queue:
    """Which jobs are over; asks Slurm now and then only."""

    local: bool
    asked: float = -1e9
    states: dict[str, str] | None = None

    @property
    def pause(self) -> float:
        """Seconds between looks at the files."""
        return 0.1 if self.local else 1.0

    def over(self, handles: Sequence[Any]) -> list[str | None]:
        """Per job how it ended; None while it is queued or runs."""
        if self.local:
            return ["ended" if handle.done() else None for handle in handles]
        if time.monotonic() - self.asked > 5.0:
            self.states, self.asked = (
                _states([handle.job_id for handle in handles]),
                time.monotonic(),
            )
        found: list[str | None] = []
        for handle in handles:
            state = (self.states or {}).get(handle.job_id, "COMPLETED")
            wrote = handle.paths.result_pickle.exists()
            found.append(None if state in _ALIVE and not wrote else state)
        return found


def _states(ids: Sequence[str]) -> dict[str, str] | None:
    """What `squeue` says of jobs; those that it has forgotten are absent."""
    arrays = sorted({name.partition("_")[0] for name in ids})
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    called = subprocess.run(
        [*command, f"--jobs={','.join(arrays)}"], capture_output=True, text=True, check=False
    )
    if called.returncode != 0 and "Invalid job id" not in called.stderr:
        return dict.fromkeys(ids, "UNKNOWN")  # the controller does not answer: look again later
    rows = [line.strip().split("|") for line in called.stdout.splitlines() if "|" in line]
    return dict(rows)


def _executor(crew: Crew, folder: Path) -> Any:
    import submitit

    local = _is_local(crew)
    if not local and shutil.which("sbatch") is None:
        raise ConfigError("engine slurm: expected the command sbatch on this machine, got none")
    if crew.gpus != int(crew.gpus):
        raise ConfigError(f"gpus: engine slurm expects a whole number, got {crew.gpus:g}")
    cpus = crew.whole("cpus", max(1, cores() // crew.workers) if local else 1)
    executor = submitit.AutoExecutor(folder=folder, cluster="local" if local else "slurm")
    asked: dict[str, Any] = {"timeout_min": crew.whole("time", 240), "name": "palpate"}
    if local:
        os.environ[_THREADS] = str(cpus)  # submitit's local jobs inherit it
    else:
        asked |= {"cpus_per_task": cpus, "slurm_array_parallelism": crew.workers}
        asked |= {_NAMES[name]: value for name, value in crew.options.items() if name in _NAMES}
        if crew.gpus:
            asked["gpus_per_node"] = int(crew.gpus)
        if "memory" in crew.options:
            asked["slurm_mem"] = crew.options["memory"]
    executor.update_parameters(**asked)
    return executor


def _is_local(crew: Crew) -> bool:
    cluster = crew.options.get("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise ConfigError(f"option cluster: expected slurm or local, got {cluster!r}")
    return cluster == "local"


def _report(handle: Any) -> Report | None:
    """What a chunk said at its end; None if it did not come to it."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        if not handle.paths.result_pickle.exists():
            return None
        return handle.result()
    except (FailedJobError, UncompletedJobError):
        return None


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names, without a Path each
    except FileNotFoundError:
        return set()
