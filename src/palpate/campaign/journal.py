"""What each process did, one line per event: for the estimate of the rest, and for people.

`log/<host>-<pid>-<session>.jsonl`, appended by one process only. Nothing in it is needed for the
record; it holds what must not be in a cell file: seconds, host, device, batch size, retries.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from palpate.campaign.owner import Owner


@dataclass(frozen=True)
class Journal:
    """Appends events of one process.

    Attributes:
        folder: run directory.
        owner: this process.
    """

    folder: Path
    owner: Owner

    def note(self, unit: str, event: str, **details: Any) -> None:
        """Append one line; a store that cannot be written says so when results are."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = orjson.dumps({"at": at, "unit": unit, "event": event, **details}) + b"\n"
        owner = self.owner
        path = self.folder / "log" / f"{owner.host}-{owner.pid}-{owner.session}.jsonl"
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(line)


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """All events of all processes; a line that a kill cut short is passed over."""
    for path in sorted((folder / "log").glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(orjson.JSONDecodeError):
                    yield orjson.loads(line)
