"""Train a classifier or a segmenter on arrays: seeded, resumable, best epoch by validation.

Every random number hangs on (seed, epoch), so an interrupted run continues with the numbers that
it would have had. Order and augmentation come from a local generator; dropout inside the model
can only use torch's global one, which is therefore seeded inside a fork and left as it was.
"""

import copy
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from palpate.errors import ConfigError
from palpate.seeds import Seeds
from palpate.training.adversarial import harden, robust_score
from palpate.training.descent import make_optimiser, rate_at
from palpate.training.examples import Examples, batches, check_examples
from palpate.training.foreign import mismatching
from palpate.training.masks import MaskLoss, are_masks, mask_scores
from palpate.training.recipe import Recipe
from palpate.training.scores import normalise, predict, scores

State = dict[str, Tensor]
Epoch = dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """What training leaves behind.

    Attributes:
        state: weights and buffers of the epoch that was kept, averaged if the recipe says so.
        epoch: number of that epoch, from 1.
        curve: per epoch: learning rate, training loss, validation loss, accuracy and AUC.
    """

    state: State
    epoch: int
    curve: list[Epoch]


@dataclass
class _Progress:
    """All that a later call needs to continue; the fields are the training state file."""

    model: State
    average: State
    optimiser: dict[str, Any]
    best: State
    best_epoch: int
    curve: list[Epoch]


@contextmanager
def seeded(recipe: Recipe, what: str, *, trial: int = 0) -> Generator[int]:
    """Seed torch's global generator inside, leave it as it was; gives the seed."""
    seed = Seeds(campaign=recipe.seed, cell=f"training {what}", trial=trial).shared()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield seed


def fit(
    model: nn.Module,
    recipe: Recipe,
    *,
    train: Examples,
    validation: Examples,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    state_file: Path | None = None,
    progress: Callable[[int, Epoch], None] | None = None,
) -> Fitted:
    """Train `model` in place and return the weights of the best epoch by validation.

    Args:
        model: Images (batch, channel, height, width), and tokens (batch, token) where the examples
            have them, in; logits (batch, class) or planes out; on the device of the training.
        recipe: Everything that decides the result; `dataset`, `target`, `output` and `threads` are
            not looked at.
        train: Examples to learn from.
        validation: Examples to choose the epoch by.
        mean: Per channel, of images in [0, 1].
        std: Per channel.
        state_file: Training state, written after every epoch and continued from when it exists.
        progress: Called after every epoch with its number, from 1, and its row of the curve.

    Raises:
        DataError: if images or labels have the wrong type or shape.
        ConfigError: if `state_file` is of another recipe.
    """
    for name, examples in (("train", train), ("validation", validation)):
        check_examples(examples, name=name)
    optimiser = make_optimiser(model, recipe)
    average = copy.deepcopy(model) if recipe.ema else model
    kept = _Progress({}, {}, {}, {}, 0, [])
    if state_file is not None and state_file.exists():
        kept = _read(state_file, recipe)
        model.load_state_dict(kept.model)
        average.load_state_dict(kept.average)
        optimiser.load_state_dict(kept.optimiser)
    for epoch in range(len(kept.curve) + 1, recipe.epochs + 1):
        row = _train_epoch(model, average, optimiser, recipe, epoch, train, mean, std)
        row |= _validate(average, validation, mean, std, mismatched=recipe.mismatched)
        if recipe.adversarial is not None:
            row["validation_robust"] = robust_score(
                average,
                validation,
                recipe.adversarial,
                mean=mean,
                std=std,
                seeds=Seeds(recipe.seed, "validation attack"),
            )
        kept.curve.append(row)
        if _is_best(kept, recipe.select_by):
            kept.best, kept.best_epoch = _snapshot(average), epoch
        if state_file is not None:
            kept.model, kept.average = model.state_dict(), average.state_dict()
            kept.optimiser = optimiser.state_dict()
            _write(state_file, recipe, kept)
        if progress is not None:
            progress(epoch, row)
    return Fitted(kept.best, kept.best_epoch, kept.curve)


def _criterion(recipe: Recipe, labels: Tensor, device: torch.device) -> nn.Module | MaskLoss:
    dice = recipe.loss == "dice_ce"
    if are_masks(labels):
        if recipe.class_balanced or recipe.label_smoothing:
            raise ConfigError("class_balanced, label_smoothing: expected neither for masks")
        return MaskLoss(dice=dice)
    if dice:
        raise ConfigError("loss: dice_ce is for masks, got class numbers")
    weight = _class_weight(labels).to(device) if recipe.class_balanced else None
    return nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)


def _train_epoch(
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    epoch: int,
    train: Examples,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Epoch:
    device = next(model.parameters()).device
    criterion = _criterion(recipe, train.labels, device)
    per_epoch = math.ceil(len(train.labels) / recipe.batch_size)
    total, rate = 0.0, 0.0
    model.train()
    with seeded(recipe, "epoch", trial=epoch) as seed:
        for index, examples in enumerate(batches(recipe, train, seed)):
            images, labels, tokens, _ = examples
            step = (epoch - 1) * per_epoch + index + 1
            rate = rate_at(recipe, step / per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            if recipe.adversarial is not None:
                seeds = Seeds(seed, "training attack", index)
                images = harden(
                    model, examples, recipe.adversarial, mean=mean, std=std, seeds=seeds
                )
            asked = () if tokens is None else (tokens.to(device),)
            logits = model(normalise(images.to(device), mean, std), *asked)
            loss = criterion(logits, labels.to(device).long())
            optimiser.zero_grad()
            loss.backward()
            if recipe.gradient_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimiser.step()
            if recipe.ema is not None:
                _move_average(average, model, decay=min(recipe.ema, (1 + step) / (10 + step)))
            total += loss.item() * len(labels)
    return {"epoch": epoch, "learning_rate": rate, "train_loss": total / len(train.labels)}


def _class_weight(labels: Tensor) -> Tensor:
    """One per class, inverse to its frequency, 1 when all are equally frequent."""
    counts = labels.bincount().clamp(min=1)
    return labels.numel() / (len(counts) * counts.float())


@torch.no_grad()
def _move_average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Weights and running statistics; counters are copied."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _validate(
    model: nn.Module,
    validation: Examples,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    mismatched: float,
) -> Epoch:
    logits = predict(model, validation.images, mean=mean, std=std, tokens=validation.tokens)
    if are_masks(validation.labels):
        found, shown = mask_scores(logits, validation.labels), ("loss", "dice")
    else:
        found, shown = scores(logits, validation.labels), ("loss", "accuracy", "auc")
    row = {f"validation_{name}": found[name] for name in shown}
    if mismatched:
        unfit = mismatching(validation)
        logits = predict(model, unfit.images, mean=mean, std=std, tokens=unfit.tokens)
        right, wrong = row["validation_dice"], mask_scores(logits, unfit.labels)["dice"]
        row["validation_mismatched"] = wrong
        row["validation_asked"] = (1 - mismatched) * right + mismatched * wrong
    return row


def _is_best(kept: _Progress, select_by: str) -> bool:
    """Whether the last row of the curve beats the epoch that is kept so far."""
    if select_by == "last" or kept.best_epoch == 0:
        return True

    def worth(row: Epoch) -> tuple[float, float]:
        loss = -row["validation_loss"]
        if f"validation_{select_by}" not in row:
            raise ConfigError(f"select_by: no validation {select_by} for this task")
        return (loss if select_by == "loss" else row[f"validation_{select_by}"], loss)

    return worth(kept.curve[-1]) > worth(kept.curve[kept.best_epoch - 1])


def _snapshot(model: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _write(path: Path, recipe: Recipe, kept: _Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save({"recipe": recipe.model_dump_json(), **vars(kept)}, temporary)
    temporary.replace(path)


def _read(path: Path, recipe: Recipe) -> _Progress:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content.pop("recipe") != recipe.model_dump_json():
        raise ConfigError(f"{path.name}: this training state is of another recipe; remove it first")
    return _Progress(**content)
