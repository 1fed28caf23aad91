"""MLflow: a run with a metric per number, tags for where it comes from, the rows as a table."""

import os
import time
from typing import Any

from palpate.errors import ConfigError, StoreError
from palpate.sinks._pack import COLUMNS, Pack

_BATCH = 1000  # the most that MLflow takes at once


def deliver(pack: Pack, *, project: str, where: str | None) -> str:
    """Write the pack as a run of an experiment.

    Args:
        pack: what goes.
        project: name of the experiment, made if it is not there.
        where: tracking URI; MLflow's own settings by default.

    Returns:
        Tracking URI, experiment and id of the run.

    Raises:
        ConfigError: MLflow is not installed.
        StoreError: MLflow could not reach its store, or refused.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # hospitals' machines stay silent
    try:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("mlflow: expected MLflow; pip install 'palpate[mlflow]'") from None
    try:
        client: Any = MlflowClient(tracking_uri=where)
        run = _write(client, pack, project)
    except (MlflowException, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"mlflow: cannot log to {where or 'the tracking URI'}: {first}") from None
    return f"{client.tracking_uri} experiment {project!r} run {run}"


def _write(client: Any, pack: Pack, project: str) -> str:
    from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

    found = client.get_experiment_by_name(project)
    experiment = found.experiment_id if found else client.create_experiment(project)
    run = client.create_run(experiment, run_name=pack.name, tags=pack.origin).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, 0) for key, value in pack.metrics.items()]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run, metrics=metrics[start : start + _BATCH])
    table = {"columns": list(COLUMNS), "data": [list(row) for row in pack.rows]}
    client.log_dict(run, table, "summary.json")
    client.set_terminated(run)
    return run
