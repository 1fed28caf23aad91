"""`palpate train recipe.yaml`: the recipe's dataset and target, then `train`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palpate import config
from palpate.datasets.base import Samples
from palpate.errors import ConfigError
from palpate.targets._checkpoint import load_state
from palpate.targets.base import TargetSource, Tokenizer
from palpate.training.examples import Examples
from palpate.training.fit import Epoch, State
from palpate.training.foreign import foreign_questions
from palpate.training.recipe import Recipe, load_recipe
from palpate.training.train import train
from palpate.types import Classification, PromptedSegmentation, Segmentation

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def train_recipe(
    path: Path,
    *,
    folder: Path | None = None,
    overrides: tuple[str, ...] = (),
    say: Callable[[str], None],
) -> Path:
    """Train what a recipe file describes.

    Args:
        path: recipe; its dataset must have a `split` parameter with train, val and test.
        folder: where checkpoint and card go; the recipe's folder by default.
        overrides: `a.b=c` settings of the recipe.
        say: called with one line per epoch.

    Returns:
        The checkpoint.

    Raises:
        UsageError: the recipe, the data or an earlier training state does not fit.
    """
    recipe = load_recipe(path, overrides)
    base = path.parent.resolve()
    source: TargetSource = config.build("targets", recipe.target, base)
    samples = {
        name: config.build("datasets", {**recipe.dataset, "split": split}, base).load()
        for name, split in _SPLITS.items()
    }
    task = samples["train"].task
    if not isinstance(task, Classification | Segmentation | PromptedSegmentation):
        raise ConfigError(
            f"{path.name}: expected a classification or segmentation dataset, got {task!r}"
        )
    if not isinstance(task, source.serves):
        raise ConfigError(f"{path.name}: no {recipe.target['name']} target for {task!r}")
    recipe = _named(recipe, source, samples["train"])
    words = source.tokenizer()
    splits = {name: _examples(part, words, say) for name, part in samples.items()}
    if recipe.mismatched:
        splits = {name: _with_foreign(splits[name], samples[name], words) for name in splits}
    channels = splits["train"].images.shape[1]

    def build() -> nn.Module:
        return source.build(classes=source.outputs(task), channels=channels)

    def progress(epoch: int, row: Epoch) -> None:
        shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "epoch")
        say(f"epoch {epoch}/{recipe.epochs}  {shown}")

    output = (folder or base) / recipe.output
    card = train(
        recipe,
        build,
        splits=splits,
        cases={name: part.cases for name, part in samples.items()},
        classes=task.classes,
        mean=source.mean,
        std=source.std,
        output=output,
        start=_start(recipe, base),
        keep=source.kept_state,
        progress=progress,
    )
    for line in _clean(card):
        say(line)
    return output.with_name(output.name + ".safetensors")


def _named(recipe: Recipe, source: TargetSource, samples: Samples) -> Recipe:
    """The recipe with an output, such as medmamba_nano_bloodmnist_28."""
    if recipe.output:
        return recipe
    label = f"{source.label or source.default_label()} {samples.label.removesuffix(' train')}"
    stem = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    return recipe.model_copy(update={"output": stem})


def _start(recipe: Recipe, base: Path) -> State | None:
    """The tensors that the recipe begins with.

    Raises:
        ConfigError: the checkpoint has no such part.
        CheckpointError: no such file, or none that can be read.
    """
    if recipe.start is None:
        return None
    path, part = base / recipe.start.weights, recipe.start.part
    found = {name: t for name, t in load_state(path).items() if name.startswith(part)}
    if not found:
        raise ConfigError(f"start: expected tensors that begin with {part!r} in {path}, got none")
    return found


def _examples(
    samples: Samples, tokenizer: Tokenizer | None, say: Callable[[str], None]
) -> Examples:
    images = samples.read(range(len(samples)))
    if images.dtype != np.uint8:
        say(f"{samples.label}: {images.dtype} images are rounded to 8 bits for training")
        low, high = samples.bounds
        images = ((images - low) / (high - low) * 255).round().astype(np.uint8)
    references = samples.references[list(range(len(samples)))]
    kind = np.int64 if isinstance(samples.task, Classification) else np.uint8
    labels = torch.from_numpy(references.astype(kind))
    return Examples(torch.from_numpy(images), labels, _tokens(samples, tokenizer))


def _with_foreign(split: Examples, samples: Samples, tokenizer: Tokenizer | None) -> Examples:
    if tokenizer is None:
        raise ConfigError("mismatched: expected a target that is asked questions, got none")
    return split._replace(foreign=foreign_questions(samples, tokenizer))


def _tokens(samples: Samples, tokenizer: Tokenizer | None) -> Tensor | None:
    """Of the audit's question first, then of every other wording, (n, wordings, token)."""
    if samples.prompts is None or tokenizer is None:
        return None
    asked = [samples.prompts, *samples.wordings.values()]
    return torch.stack([tokenizer(texts) for texts in asked], dim=1)


def _clean(card: dict[str, Any]) -> list[str]:
    """One line per split that was scored."""
    lines: list[str] = []
    for split, ends in card["intervals"].items():
        values = card["clean"][split]
        shown = (f"{k} {values[k]:.3f} ({_ends(pair)})" for k, pair in ends.items() if k in values)
        lines.append(f"{split}, n {values['n']}: {', '.join(shown)}")
    return lines


def _ends(pair: list[float] | None) -> str:
    return "no interval" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
