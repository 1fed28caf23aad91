"""Who holds a claim, and whether that process is still there."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """One process on one machine.

    Attributes:
        host: name of the machine.
        place: tells machines, boots and containers with one name apart.
        pid: process.
        born: when the kernel says it started, so that a number used again is not mistaken.
        session: of the run command that it works for.
    """

    host: str
    place: str
    pid: int
    born: str
    session: str

    @classmethod
    def here(cls, session: str) -> "Owner":
        """This process."""
        return cls(socket.gethostname(), _place(), os.getpid(), _born(os.getpid()), session)

    def has_ended(self) -> bool:
        """Whether the process is known to be gone; False where it runs on another machine."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # somebody else's, but there
        return self.born != _born(self.pid)


@functools.cache
def _place() -> str:
    return f"{socket.gethostname()}/{_read('/proc/sys/kernel/random/boot_id')}/{_namespace()}"


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Start time in clock ticks since boot; empty where the system does not tell."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if len(fields) < 20 or fields[0] == "Z" else fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
