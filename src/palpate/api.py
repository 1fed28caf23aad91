"""What a notebook types: wrap a model, load data, audit, look at the result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from palpate import registry
from palpate.campaign.drive import Watch, drive
from palpate.campaign.plan import Audit, Placed, each_once, expand
from palpate.config import (
    NO_DEFENCE,
    Spec,
    check_defences_and_metrics,
    validated,
)
from palpate.datasets.base import Samples
from palpate.errors import ConfigError, TargetError
from palpate.perturbation import Perturbation
from palpate.run import Run
from palpate.targets.base import Target
from palpate.types import Bounds, Task

Asked = str | Mapping[str, Any] | Perturbation


def wrap(
    module: nn.Module,
    *,
    task: Task,
    bounds: Bounds | tuple[float, float] = (0.0, 1.0),
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    name: str = "",
) -> Target:
    """Make any nn.Module a target.

    Args:
        module: in evaluation mode; takes normalised images (batch, channel, *spatial) and returns
            logits, or an object with `.logits`, or a dict with "logits" or "out".
        task: what the logits mean; its class names fix the class count.
        bounds: smallest and largest legal pixel value; budgets are in these units.
        mean: per channel or one for all, subtracted inside the target.
        std: likewise, divided by.
        name: label in tables; the class name by default.

    Raises:
        TargetError: no module, one in training mode, or the bounds are empty.
    """
    if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped notebooks
        raise TargetError(f"{name or 'model'}: expected an nn.Module, got {type(module).__name__}")
    if module.training:
        raise TargetError(
            f"{name or type(module).__name__}: expected a model in evaluation mode; call .eval()"
        )
    return Target(
        module=module,
        task=task,
        bounds=Bounds(*bounds),
        mean=tuple(float(m) for m in mean),
        std=tuple(float(s) for s in std),
        name=name or type(module).__name__,
    )


def load_dataset(name: str, *, limit: int | None = None, **parameters: Any) -> Samples:
    """Load a dataset component by name.

    Args:
        name: such as "medmnist".
        limit: keep the first so many samples.
        **parameters: fields of the component.

    Raises:
        UsageError: unknown name or parameter, or files missing or damaged.
    """
    return registry.create("datasets", name, parameters, base=Path.cwd()).load(limit)


def audit(
    target: Target | Sequence[Target],
    dataset: Samples,
    perturbations: Sequence[Asked],
    *,
    store: str | Path,
    defences: Sequence[Spec] = (NO_DEFENCE,),
    seed: int = 0,
    metrics: Sequence[str | Spec] = (),
    confidence: float = 0.95,
    storage: str = "float32",
    batch_size: int = 64,
    watch: Watch | None = None,
) -> Run:
    """Audit one or more targets; an interrupted audit goes on where it stopped.

    Args:
        target: from `wrap`, or several.
        dataset: from `load_dataset` or `Samples.of`.
        perturbations: names, `{"name": ..., parameters}` (lists are sweeps), or components.
        store: run directory.
        defences: specs; `{"name": "none"}` is the bare target.
        seed: root of every random number.
        metrics: names, or `{"name": ..., parameters}`; the task's usual ones by default.
        confidence: level of the intervals.
        storage: how images are stored before they are judged: "float32" for as computed, "uint8",
            "png" or "jpeg:90"; see `palpate.storage.Storage`.
        batch_size: samples per forward pass; halved for a cell that does not fit into memory, as
            the journal of the run says.
        watch: called after every cell.

    Raises:
        UsageError: one line that says what was expected, what came and where.
    """
    targets = (target,) if isinstance(target, Target) else tuple(target)
    for one in targets:
        if one.task != dataset.task or one.bounds != dataset.bounds:
            raise TargetError(
                f"{one.name}: expected the dataset's task and bounds {dataset.task},"
                f" {tuple(dataset.bounds)}, got {one.task}, {tuple(one.bounds)}"
            )
    if len({one.name for one in targets}) < len(targets):
        raise TargetError(f"targets: expected a name each, got {[one.name for one in targets]}")
    placed = _placed(perturbations)
    config = validated(
        {
            "seed": seed,
            "dataset": {"name": dataset.label},
            "targets": [{"name": "wrapped", "label": one.name} for one in targets],
            "defences": list(defences),
            "perturbations": [_spec(component) for _, component in placed],
            "metrics": list(metrics),
            "statistics": {"confidence": confidence},
            "storage": storage,
            "batch_size": batch_size,
        },
        where="audit",
    )
    check_defences_and_metrics(config)
    sources = tuple(dict(spec) for spec in config.targets)
    built = Audit(config, dataset, targets, sources, tuple(placed))
    return Run(drive(built, Path(store), command="palpate.audit(...)", watch=watch))


def _placed(asked: Sequence[Asked]) -> list[Placed]:
    placed: list[Placed] = []
    for one in asked:
        if isinstance(one, Perturbation):
            placed.append((one.family, one))
        else:
            spec = {"name": one} if isinstance(one, str) else dict(one)
            if "name" not in spec:
                raise ConfigError(f"perturbation: expected a 'name', got {one!r}")
            placed += expand([spec])
    if not placed:
        raise ConfigError("perturbations: expected at least one, got none")
    return each_once(placed)


def _spec(component: Perturbation) -> Spec:
    return {"name": registry.name_of(component), **registry.describe(component)}
