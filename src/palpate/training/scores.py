"""Clean scores of a classifier's logits, for choosing an epoch and for the card."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int = 256,
    tokens: Tensor | None = None,
) -> Tensor:
    """Logits (n, classes) on the CPU of uint8 images (n, channel, height, width).

    Of `tokens` (n, wordings, token) each image is asked the first wording.

    The model is put in evaluation mode for the call and left in the mode that it was in.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    found: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        asked = () if tokens is None else (tokens[part, 0].to(device),)
        batch = normalise(images[part].to(device) / 255, mean, std)
        found.append(model(batch, *asked).cpu())
    model.train(training)
    return torch.cat(found)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean and divide by the deviation of each channel; images in [0, 1]."""
    shape = (1, -1, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def auc(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """Area under the ROC curve, one class against the rest, averaged over classes.

    Ties count half (Mann and Whitney, 1947). Two classes have one area, that of class 1. A class
    without both kinds of example has no area and is left out; nan if none has one.
    """
    classes = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas: list[float] = []
    for index in classes:
        positive = labels == index
        hits, misses = int(positive.sum()), int((~positive).sum())
        if hits and misses:
            ranks = rankdata(probabilities[:, index])
            areas.append((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))
    return float(np.mean(areas)) if areas else float("nan")


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, AUC, mean cross-entropy and n of logits (n, classes)."""
    logits, labels = logits.double(), labels.long()
    right = logits.argmax(1) == labels
    per_class = [right[labels == index].double().mean().item() for index in labels.unique()]
    return {
        "accuracy": right.double().mean().item(),
        "balanced_accuracy": float(np.mean(per_class)),
        "auc": auc(logits.softmax(1).numpy(), labels.numpy()),
        "loss": functional.cross_entropy(logits, labels).item(),
        "n": len(labels),
    }
