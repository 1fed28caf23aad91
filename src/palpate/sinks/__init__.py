"""Trackers that a run's summary may be sent to: `send(record, "mlflow", ...)`; never images or ids.

One file per tracker, each with one function `deliver(pack, project=..., where=...)`.
"""

import importlib

from palpate.errors import UnknownComponent, nearest
from palpate.record import Record
from palpate.sinks._pack import packed

NAMES = ("mlflow", "wandb")


def send(record: Record, to: str, *, project: str = "palpate", where: str | None = None) -> str:
    """Send the summary's rows of a run to a tracker.

    Only numbers, names of models, disturbances and metrics, and digests leave: no image, no sample,
    no case, no folder of this machine.

    Args:
        record: the run, finished or not.
        to: "mlflow" or "wandb".
        project: experiment (MLflow) or project (W&B).
        where: tracking URI (MLflow), or folder of an offline run (W&B); the tracker's own settings
            decide by default.

    Returns:
        Where the numbers are now.

    Raises:
        UnknownComponent: no such tracker.
        ConfigError: its package is not installed.
        StoreError: it could not be reached, or refused.
    """
    if to not in NAMES:
        raise UnknownComponent(f"no tracker named {to!r}; {nearest(to, NAMES)}")
    sink = importlib.import_module(f"palpate.sinks.{to}")
    return sink.deliver(packed(record), project=project, where=where)
