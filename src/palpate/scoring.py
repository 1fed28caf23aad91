"""Quality of one decision in [0, 1], per sample: the measure that attacks and audits share."""

import torch
from torch import Tensor

from palpate.types import PerSample, Prediction, References


def scores(prediction: Prediction, references: References) -> PerSample:
    """Score each sample; 0 where the output is non-finite, never a lucky class 0.

    Classification: 1 if the class is right, else 0. Multi-label: share of right labels.
    Dense: Dice, averaged over the foreground classes, under the empty-mask policy (both masks
    empty: 1; one empty: 0), so that an erased mask can never score well.

    Args:
        prediction: finite or not.
        references: as in `Batch.references`, on the same device.

    Returns:
        (batch,) float32 in [0, 1].
    """
    decisions = prediction.decisions
    if prediction.logits.ndim == 2:
        right = (decisions == references).float()
        score = right if right.ndim == 1 else right.mean(dim=1)
    else:
        score = _dice(planes(decisions, prediction), planes(references, prediction))
    return torch.where(prediction.finite, score, torch.zeros_like(score))


def planes(masks: Tensor, prediction: Prediction) -> Tensor:
    """Foreground as boolean planes (batch, classes, *spatial); label 0 is background if exclusive.

    Args:
        masks: decisions or references of a dense task.
        prediction: says how many classes there are, and whether they exclude each other.
    """
    if not prediction.exclusive:
        return masks.bool()
    classes = torch.arange(1, prediction.logits.shape[1], device=masks.device)
    return masks.unsqueeze(1) == classes.reshape(1, -1, *(1 for _ in masks.shape[1:]))


def _dice(predicted: Tensor, expected: Tensor) -> Tensor:
    predicted, expected = predicted.flatten(2), expected.flatten(2)
    overlap = (predicted & expected).sum(dim=2)
    total = predicted.sum(dim=2) + expected.sum(dim=2)
    dice = torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)
    return dice.mean(dim=1)
