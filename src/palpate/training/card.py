"""The card of a checkpoint: a JSON file that says how it was made and how good it is."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from palpate.training.examples import Examples
from palpate.training.fit import Fitted
from palpate.training.intervals import CONFIDENCE
from palpate.training.masks import are_masks
from palpate.training.recipe import Recipe

PACKAGES = ("palpate", "torch", "numpy", "timm", "segmentation-models-pytorch", "monai")


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {raw.dtype} {tuple(raw.shape)}".encode())
        sha.update(raw.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def data_digest(splits: Mapping[str, Examples]) -> str:
    """SHA-256 over the images, labels and questions of every split."""
    return tensors_digest(
        {
            f"{name}.{f}": t
            for name, s in splits.items()
            for f, t in s._asdict().items()
            if t is not None
        }
    )


def versions() -> dict[str, str]:
    """Python, machine and the installed packages that decide the numbers."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def card(
    recipe: Recipe,
    fitted: Fitted,
    *,
    start: Mapping[str, Tensor] | None = None,
    parameters: int,
    splits: Mapping[str, Examples],
    clean: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, list[float] | None]],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Any]:
    """Plain data of a card.

    Args:
        recipe: How it was made.
        fitted: What came out.
        start: Tensors that it began with, for their digest; None where all were fresh.
        parameters: Number of trainable parameters.
        splits: The data, for its digest and counts.
        clean: Scores per split, such as `{"validation": {"accuracy": ...}, "test": ...}`.
        intervals: Low and high end, 95 %, for each split and score that has them.
        classes: Names in the order of the logits.
        mean: Of the normalisation, per channel.
        std: Of the normalisation, per channel.
    """
    images = next(iter(splits.values())).images
    return {
        "schema_version": 1,
        "name": Path(recipe.output).name,
        "use": "made to be audited; not for clinical use",
        "classes": list(classes),
        "input": {
            "shape": list(images.shape[1:]),
            "bounds": [0.0, 1.0],
            "mean": list(mean),
            "std": list(std),
        },
        "clean": {split: dict(values) for split, values in clean.items()},
        "confidence": CONFIDENCE,
        "intervals": {split: dict(ends) for split, ends in intervals.items()},
        "parameters": parameters,
        "start_digest": None if start is None else tensors_digest(start),
        "state_digest": tensors_digest(fitted.state),
        "data": {
            "digest": data_digest(splits),
            "counts": {name: _counts(split.labels) for name, split in splits.items()},
        },
        "seed": recipe.seed,
        "kept_epoch": fitted.epoch,
        "recipe": recipe.model_dump(mode="json"),
        "versions": versions(),
        "curve": fitted.curve,
    }


def _counts(labels: Tensor) -> dict[Any, int]:
    """Examples per class; for masks, how many there are and how many are empty."""
    if are_masks(labels):
        empty = int((labels.flatten(1) == 0).all(dim=1).sum())
        return {"images": len(labels), "empty masks": empty}
    return dict(enumerate(labels.bincount().tolist()))


def write_card(path: Path, content: Mapping[str, Any]) -> None:
    """Write a card as indented JSON; a score that is not finite becomes null."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    path.write_bytes(orjson.dumps(dict(content), option=options))
