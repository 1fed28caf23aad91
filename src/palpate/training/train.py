"""One recipe to one checkpoint with its card."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from palpate.errors import ConfigError, DataError
from palpate.targets._checkpoint import fit_state
from palpate.training.card import card, write_card
from palpate.training.examples import Examples
from palpate.training.fit import Epoch, State, fit, seeded
from palpate.training.foreign import MISMATCHED, mismatching
from palpate.training.intervals import intervals
from palpate.training.masks import are_masks, mask_estimates, mask_scores
from palpate.training.recipe import Recipe
from palpate.training.scores import predict, scores


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begun(recipe: Recipe, build: Callable[[], nn.Module], start: State | None) -> nn.Module:
    """The network before the first step, on the device of the training."""
    with seeded(recipe, "weights"):
        model = build().to(recipe.device)
    if start is not None:
        fit_state(model, {**model.state_dict(), **start}, Path("start"))
    if recipe.start is not None and recipe.start.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(recipe.start.part))
    return model


def _stored(state: State, storage: str) -> State:
    """The weights as the file will hold them."""
    kind = {"float32": torch.float32, "float16": torch.float16}[storage]
    return {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}


def _answers(
    model: nn.Module,
    splits: Mapping[str, Examples],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Tensor]:
    """Logits of every split."""
    return {
        name: predict(model, split.images, mean=mean, std=std, tokens=split.tokens)
        for name, split in splits.items()
    }


def _scored(
    splits: Mapping[str, Examples], cases: Mapping[str, Sequence[str]], *, foreign: bool
) -> tuple[dict[str, Examples], dict[str, Sequence[str]]]:
    """Splits that were not learned from, and their cases; again under questions that do not fit."""
    found = {name: split for name, split in splits.items() if name != "train"}
    units = dict(cases)
    for name, split in list(found.items()) if foreign else ():
        unfit = f"{name} {MISMATCHED}"
        found[unfit] = mismatching(split)
        times = len(found[unfit].labels) // len(split.labels)
        if name in cases:
            units[unfit] = [case for case in cases[name] for _ in range(times)]
    return found, units


def _measured(
    logits: Tensor, labels: Tensor, classes: tuple[str, ...], cases: Sequence[str] | None
) -> tuple[dict[str, float], dict[str, list[float] | None]]:
    """Clean scores of one split, and their intervals."""
    if not are_masks(labels):
        return scores(logits, labels), intervals(logits, labels, classes=classes, cases=cases)
    estimates = mask_estimates(logits, labels, classes=classes, cases=cases)
    found = {name: value for name, (value, *_) in estimates.items() if value is not None}
    ends = {
        name: None if low is None or high is None else [low, high]
        for name, (_, low, high) in estimates.items()
    }
    return mask_scores(logits, labels) | found, ends


def train(
    recipe: Recipe,
    build: Callable[[], nn.Module],
    *,
    splits: Mapping[str, Examples],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    output: Path,
    cases: Mapping[str, Sequence[str]] | None = None,
    start: State | None = None,
    keep: Callable[[State], Mapping[str, Tensor]] = dict,
    progress: Callable[[int, Epoch], None] | None = None,
) -> dict[str, Any]:
    """Make a checkpoint and its card, or continue where an earlier call was interrupted.

    Writes `<output>.safetensors` and `<output>.json`; while it runs, `<output>.training.pt`. The
    splits other than "train" are scored once, after the epoch has been chosen by "validation", and
    where the recipe has `mismatched`, again as "<split> mismatched".

    Args:
        recipe: Everything that decides the weights.
        build: Makes the untrained model; called once, with torch's generator seeded.
        splits: "train", "validation" and any others to score, such as "test".
        classes: Names in the order of the logits.
        mean: Per channel, of images in [0, 1].
        std: Per channel.
        output: Checkpoint without suffix.
        cases: Patient or other unit of independence of each example, per split; for the intervals.
        start: Tensors to begin with, those of the recipe's `start`; the others are fresh.
        keep: Those of the tensors that the checkpoint has to hold; all by default.
        progress: Called after every epoch with its number and its row of the curve.

    Returns:
        The card, as written.

    Raises:
        DataError: if a needed split is missing or does not fit.
        ConfigError: if there is a training state of another recipe, or no such device.
        CheckpointError: if `start` does not fit the model.
    """
    if missing := {"train", "validation"} - splits.keys():
        raise DataError(f"training: expected splits train and validation, got no {min(missing)}")
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: expected a CUDA device, got none; set device to cpu")
    output.parent.mkdir(parents=True, exist_ok=True)
    state_file = output.with_name(output.name + ".training.pt")
    with _threads(recipe.threads):
        model = _begun(recipe, build, start)
        fitted = fit(
            model,
            recipe,
            train=splits["train"],
            validation=splits["validation"],
            mean=mean,
            std=std,
            state_file=state_file,
            progress=progress,
        )
        stored = _stored(fitted.state, recipe.storage)
        model.load_state_dict(stored)
        scored, units = _scored(splits, cases or {}, foreign=recipe.mismatched > 0)
        logits = _answers(model, scored, mean=mean, std=std)
    fitted = replace(fitted, state=dict(keep(stored)))
    measured = {
        name: _measured(found, scored[name].labels, classes, units.get(name))
        for name, found in logits.items()
    }
    content = card(
        recipe,
        fitted,
        start=start,
        parameters=sum(p.numel() for p in model.parameters()),
        splits=splits,
        clean={name: found for name, (found, _) in measured.items()},
        intervals={name: ends for name, (_, ends) in measured.items()},
        classes=classes,
        mean=mean,
        std=std,
    )
    save_file(fitted.state, output.with_name(output.name + ".safetensors"))
    write_card(output.with_name(output.name + ".json"), content)
    state_file.unlink(missing_ok=True)
    return content
