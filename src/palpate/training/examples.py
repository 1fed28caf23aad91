"""What is learned from, and the batches that an epoch takes from it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from palpate.errors import ConfigError, DataError
from palpate.seeds import Seeds
from palpate.training.augment import augmented
from palpate.training.masks import are_masks
from palpate.training.recipe import Recipe


class Examples(NamedTuple):
    """What is learned from.

    Attributes:
        images: (n, channel, height, width), uint8.
        labels: classes (n,), int64, or masks, uint8.
        tokens: (n, wordings, token) for networks that are asked a question; one wording is drawn
            per image and epoch, and the first is the one that is scored.
        foreign: (n, wordings, sites, token), questions that do not fit the image; see
            `training.foreign`.
    """

    images: Tensor
    labels: Tensor
    tokens: Tensor | None = None
    foreign: Tensor | None = None


def check_examples(examples: Examples, *, name: str) -> None:
    """Refuse what `fit` cannot learn from.

    Raises:
        DataError: images or labels of the wrong type or shape.
    """
    images, labels = examples.images, examples.labels
    masks = are_masks(labels) and labels.shape[-2:] == images.shape[-2:]
    kind = torch.uint8 if masks else torch.int64
    fits = images.ndim == 4 and len(images) == len(labels) > 0 and (masks or labels.ndim == 1)
    if not fits or images.dtype != torch.uint8 or labels.dtype != kind:
        raise DataError(
            f"{name}: expected uint8 images (n, channel, height, width) and int64 labels (n,) or"
            f" uint8 masks (n, [classes,] height, width);"
            f" got {images.dtype} {tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}"
        )


def batches(recipe: Recipe, train: Examples, seed: int) -> Iterator[Examples]:
    """Augmented float images in [0, 1], labels and one question each, in random order."""
    generator = torch.Generator().manual_seed(seed)
    count = len(train.labels)
    order = torch.randperm(count, generator=generator)
    unfit = _unfit(recipe, train, seed)
    for chosen in order.tensor_split(math.ceil(count / recipe.batch_size)):
        images, labels = train.images[chosen] / 255, train.labels[chosen]
        if not are_masks(labels):
            for augmentation in recipe.augmentation:
                images = augmentation(images, generator)
            yield Examples(images, labels)
            continue
        images, labels = augmented(images, labels, recipe.augmentation, generator)
        tokens = _asked(train.tokens, chosen, generator)
        if unfit is not None and tokens is not None:
            wrong, questions = (part[chosen] for part in unfit)
            tokens = torch.where(wrong[:, None], questions, tokens)
            labels = labels * ~wrong.view(-1, *(1 for _ in labels.shape[1:]))
        yield Examples(images, labels, tokens)


def _asked(tokens: Tensor | None, chosen: Tensor, generator: torch.Generator) -> Tensor | None:
    """One wording for each of some images."""
    if tokens is None:
        return None
    wording = torch.randint(tokens.shape[1], (len(chosen),), generator=generator)
    return tokens[chosen, wording]


def _unfit(recipe: Recipe, train: Examples, seed: int) -> tuple[Tensor, Tensor] | None:
    """Which images meet a question that does not fit this epoch (n,), and it (n, token).

    Drawn for the images in the order of the data, so that neither the size of the batches nor
    the draws of order and augmentation have a say.
    """
    if not recipe.mismatched:
        return None
    if train.foreign is None:
        raise ConfigError("mismatched: expected examples with questions that do not fit, got none")
    generator = torch.Generator().manual_seed(Seeds(seed, "questions that do not fit").shared())
    count, wordings, sites, _ = train.foreign.shape
    wrong = torch.rand(count, generator=generator) < recipe.mismatched
    wording, site = (
        torch.randint(choices, (count,), generator=generator) for choices in (wordings, sites)
    )
    return wrong, train.foreign[torch.arange(count), wording, site]
