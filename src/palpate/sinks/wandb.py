"""W&B: one run with the numbers as its summary, and the rows as a table.

W&B would also note the machine, the user's code and its command line; all of that is turned off.
"""

from pathlib import Path
from typing import Any

from palpate.errors import ConfigError, StoreError
from palpate.sinks._pack import COLUMNS, Pack


def deliver(pack: Pack, *, project: str, where: str | None) -> str:
    """Write the pack as a run of a project.

    Args:
        pack: what goes.
        project: name of the project.
        where: folder of an offline run, for `wandb sync` later; None for W&B's own settings.

    Returns:
        Address of the run, or its folder.

    Raises:
        ConfigError: W&B is not installed.
        StoreError: W&B could not be reached, or refused.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("wandb: expected W&B; pip install 'palpate[wandb]'") from None
    try:
        if where is not None:  # W&B would fall back to a temporary folder
            Path(where).mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=project, name=pack.name, config=pack.origin, settings=_settings(wandb, where)
        )
    except (wandb.Error, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"wandb: cannot log to project {project!r}: {first}") from None
    run.summary.update(pack.metrics)
    run.log({"summary": wandb.Table(columns=list(COLUMNS), data=[list(row) for row in pack.rows])})
    place = str(run.settings.sync_dir if run.offline else run.url)
    run.finish()
    return place


def _settings(wandb: Any, where: str | None) -> Any:
    placed = {} if where is None else {"mode": "offline", "root_dir": where}
    return wandb.Settings(
        **placed,
        console="off",
        disable_code=True,
        disable_git=True,
        host="not recorded",
        reinit="create_new",  # a run that the user has open stays as it is
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
