"""On a Ray cluster, or a private one on this machine: resident workers that load once.

Ray core only, without its dashboard and its usage statistics. A private cluster listens on the
loopback address alone, with a token of its own, and leaves nothing behind. On a cluster of several
nodes token authentication is on unless the user turns it off (`RAY_AUTH_MODE=disabled`). The run,
the audit file and the data must lie under the same paths on all nodes.
"""

import contextlib
import importlib
import os
import secrets
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

from typing_extensions import override

from palpate.campaign.crew import Crew
from palpate.campaign.engine import RETRIES, Engine, Losses, errand_of, extra
from palpate.campaign.hand import Errand, Hand, cores
from palpate.campaign.unit import Ended, Unit
from palpate.errors import ConfigError, PalpateError, StoreError

_LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 10.0  # seconds for a cluster to answer
_STORE: Final = 100 * 2**20  # bytes of shared memory; only keys travel
# the first name is Ray's own: without clusters it takes the loopback address, on any system
_LOCAL: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_CARRIED: Final = ("PALPATE_NO_PLUGINS", "PALPATE_DATA", "HF_HUB_OFFLINE")


@final
class RayEngine(Engine):
    """Dynamic balancing over the devices of one machine or many; option `cpus` per worker."""

    @override
    def run(self, units: Sequence[Unit], hand: Hand, crew: Crew) -> Iterator[Ended]:
        crew.check_options("cpus", address=True)
        extra("ray", "ray")
        errand = errand_of(hand, crew)
        with cluster(crew):
            cpus = _cpus(crew)
            _check_room(crew, cpus)
            residents = _Residents(errand, crew, cpus, Losses(hand), deque(units))
            try:
                yield from residents.run(min(crew.workers, len(units)))
            finally:
                residents.stop()


@contextmanager
def cluster(crew: Crew) -> Generator[None]:
    """Join a cluster, or start a private one; one that this process is in already is used.

    Raises:
        ConfigError: no cluster at the address, or no token for it.
    """
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", **_security(crew)}):
        ray = _ray()
        _check_address(crew.address)
        if ray.is_initialized():
            yield
            return
        folder = tempfile.mkdtemp(prefix="plp-", dir="/tmp" if os.name == "posix" else None)
        try:
            _join(crew, folder)
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _join(crew: Crew, folder: str) -> None:
    ray = _ray()
    how: dict[str, Any] = {"address": crew.address} if crew.address else _own(folder)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **how)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        words = " ".join(str(error).split())[:300]
        raise ConfigError(f"ray {crew.address or 'on this machine'}: {words}") from None
    if not crew.address:
        _check_private()


def _ray() -> Any:
    return importlib.import_module("ray")


class Resident:
    """One worker on the cluster: loads data and models once and keeps them."""

    def __init__(self, errand: Errand, threads: int, *, gpu: bool) -> None:
        self._how = (errand, threads, gpu)
        self._hand: Hand | None = None

    def load(self) -> None:
        """Load; apart from the constructor, whose errors Ray does not hand on as they are."""
        errand, threads, gpu = self._how
        self._hand = Hand.rebuilt(errand, threads=threads, gpu=gpu)

    def attempt(self, unit: Unit) -> Ended:
        """See `Hand.attempt`."""
        assert self._hand is not None
        return self._hand.attempt(unit)


@dataclass
class _Seat:
    """One resident; `unit` is what it has in hand."""

    actor: Any
    unit: Unit | None = None
    ready: bool = False


@dataclass
class _Residents:
    """Residents that come and go, and the units that wait for them."""

    errand: Errand
    crew: Crew
    cpus: int
    losses: Losses
    waiting: deque[Unit]
    calls: dict[Any, _Seat] = field(default_factory=dict[Any, _Seat])
    idle: list[_Seat] = field(default_factory=list[_Seat])
    failed_starts: int = 0

    def run(self, workers: int) -> Iterator[Ended]:
        ray = _ray()
        for _ in range(workers):
            self._start()
        while self.waiting or any(seat.unit for seat in self.calls.values()):
            (call, *_), _ = ray.wait(list(self.calls), num_returns=1)
            ended = self._heard(call, self.calls.pop(call))
            while self.idle and self.waiting:
                self._hand_out(self.idle.pop())
            if ended is not None:
                yield ended

    def stop(self) -> None:
        """End all residents; what they had in hand is free for others."""
        ray = _ray()
        for seat in [*self.calls.values(), *self.idle]:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(seat.actor)
            if seat.unit is not None:
                self.losses.hand.claims.drop(seat.unit.name)

    def _start(self) -> None:
        ray = _ray()
        variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        remote = ray.remote(Resident).options(
            num_cpus=self.cpus,
            num_gpus=self.crew.gpus,
            max_restarts=0,
            runtime_env={"env_vars": variables},
        )
        actor = remote.remote(self.errand, self.cpus, gpu=self.crew.gpus > 0)
        self.calls[actor.load.remote()] = _Seat(actor)

    def _hand_out(self, seat: _Seat) -> None:
        seat.unit = self.waiting.popleft()
        self.calls[seat.actor.attempt.remote(seat.unit)] = seat

    def _heard(self, call: Any, seat: _Seat) -> Ended | None:
        ray = _ray()
        try:
            said: Ended | None = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PalpateError):
                raise error.cause from None
            raise StoreError(
                f"a worker failed: {type(error.cause).__name__}: {error.cause}"
            ) from None
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            return self._lost(seat, error)
        self.failed_starts, seat.ready, seat.unit = 0, True, None
        self.idle.append(seat)
        return said

    def _lost(self, seat: _Seat, error: Exception) -> Ended | None:
        ray = _ray()
        memory = isinstance(error, ray.exceptions.OutOfMemoryError)
        why = "out of memory" if memory else type(error).__name__
        ended = None
        if seat.unit is None:
            self.failed_starts += 1
            if self.failed_starts > RETRIES:
                raise StoreError(
                    f"expected {self.crew.workers} workers to start, lost {self.failed_starts}"
                    f" while they loaded data and models ({why}); run again, with fewer"
                )
        else:
            following = self.losses.after(seat.unit, why, halve=memory)
            if isinstance(following, Unit):
                self.waiting.append(following)
            else:
                ended = following
        if self.waiting:
            self._start()
        return ended


def _own(folder: str) -> dict[str, Any]:
    return {
        "num_cpus": cores(),
        "include_dashboard": False,
        "object_store_memory": _STORE,
        "_temp_dir": folder,
        "_node_ip_address": _LOOPBACK,
    }


def _security(crew: Crew) -> dict[str, str]:
    if not crew.address:
        return {**_LOCAL, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    here = _LOCAL if crew.address.partition(":")[0] == _LOOPBACK else {}
    return {**here, "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers; Ray would try for minutes.

    Raises:
        ConfigError: what is wrong with it.
    """
    if address in ("", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"address: expected auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"address: expected a Ray cluster at {address}, got {error}") from None


def _check_private() -> None:
    ray = _ray()
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if found != {_LOOPBACK}:
        raise ConfigError(
            f"ray: expected a cluster of its own on {_LOOPBACK} alone, got {', '.join(found)};"
            " Ray was imported before Palpate could say so: start it in a fresh process"
        )


def _cpus(crew: Crew) -> int:
    """Cores of one worker: an even share of this machine; one on a cluster, if not said."""
    return crew.whole("cpus", 1 if crew.address else max(1, cores() // crew.workers))


def _check_room(crew: Crew, cpus: int) -> None:
    """Refuse more than the cluster has; Ray would wait for it without a word.

    Raises:
        ConfigError: what was asked for, and what there is.
    """
    ray = _ray()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(_places(node.get("CPU", 0.0), cpus), _places(node.get("GPU", 0.0), crew.gpus))
        for node in nodes
    )
    if room < crew.workers:
        has = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        raise ConfigError(
            f"expected at most what the cluster has, {has['CPU']:g} CPUs and {has['GPU']:g} GPUs on"
            f" {len(nodes)} nodes: room for {room:g} such workers; got {crew.workers} workers with"
            f" {cpus} CPUs and {crew.gpus:g} GPUs each"
        )


def _places(has: float, each: float) -> float:
    """How many workers fit on one node; a device is not shared out across its border."""
    if not each:
        return float("inf")
    return has * int(1 / each + 1e-9) if each < 1 else has // each


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
