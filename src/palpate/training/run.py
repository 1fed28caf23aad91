"""`palpate train recipe.yaml`: the recipe's dataset and target, then `train`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from palpate import config
from palpate.datasets.base import Samples
from palpate.errors import ConfigError
from palpate.targets.base import TargetSource
from palpate.training.fit import Epoch, Examples
from palpate.training.recipe import load_recipe
from palpate.training.train import train
from palpate.types import Classification

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def train_recipe(path: Path, *, folder: Path | None = None, say: Callable[[str], None]) -> Path:
    """Train what a recipe file describes.

    Args:
        path: recipe; its dataset must have a `split` parameter with train, val and test.
        folder: where checkpoint and card go; the recipe's folder by default.
        say: called with one line per epoch.

    Returns:
        The checkpoint.

    Raises:
        UsageError: the recipe, the data or an earlier training state does not fit.
    """
    recipe = load_recipe(path)
    base = path.parent.resolve()
    samples = {
        name: config.build("datasets", {**recipe.dataset, "split": split}, base).load()
        for name, split in _SPLITS.items()
    }
    task = samples["train"].task
    if not isinstance(task, Classification):
        raise ConfigError(f"{path.name}: expected a classification dataset, got {task!r}")
    splits = {name: _examples(part) for name, part in samples.items()}
    source: TargetSource = config.build("targets", recipe.target, base)
    channels = splits["train"].images.shape[1]

    def build() -> nn.Module:
        return source.build(classes=len(task.classes), channels=channels)

    def progress(epoch: int, row: Epoch) -> None:
        shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "epoch")
        say(f"epoch {epoch}/{recipe.epochs}  {shown}")

    output = (folder or base) / recipe.output
    card = train(
        recipe,
        build,
        splits=splits,
        classes=task.classes,
        mean=source.mean,
        std=source.std,
        output=output,
        progress=progress,
    )
    say(f"clean: {card['clean']}")
    return output.with_name(output.name + ".safetensors")


def _examples(samples: Samples) -> Examples:
    images = samples.read(range(len(samples)))
    if images.dtype != np.uint8:
        raise ConfigError(f"{samples.label}: expected 8-bit images to train on, got {images.dtype}")
    return Examples(torch.from_numpy(images), torch.from_numpy(samples.references))
