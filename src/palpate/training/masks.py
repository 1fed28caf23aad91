"""Training on masks: the loss, the clean scores and their intervals.

References are label maps (n, height, width) of classes that exclude each other, or 0/1 planes
(n, classes, height, width). A network with one plane answers a label map of two classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palpate import registry
from palpate.metrics.base import Ratio, TaskInfo
from palpate.regions import compare
from palpate.scoring import planes, scores
from palpate.statistics.estimate import Design, codes
from palpate.statistics.measure import estimate
from palpate.training.intervals import CONFIDENCE, RESAMPLES
from palpate.types import Prediction, Segmentation

METRICS: Final = ("dice", "iou", "hd95", "surface_distance", "lesion_sensitivity")
_SMOOTH: Final = 1e-5


@dataclass(frozen=True)
class MaskLoss:
    """Cross-entropy, plus one less the soft Dice of the batch where asked for.

    The Dice is that of Milletari et al. (arXiv:1606.04797) with sums over the batch, so that an
    empty mask gives no gradient of its own; background is left out.

    Attributes:
        dice: whether to add it.
    """

    dice: bool = True

    def __call__(self, logits: Tensor, references: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (batch, planes, *spatial).
            references: label maps or planes, integers.
        """
        if logits.shape[1] > 1 and references.ndim == logits.ndim - 1:
            loss = functional.cross_entropy(logits, references)
            shares = logits.softmax(dim=1)[:, 1:]
            wanted = functional.one_hot(references, logits.shape[1]).movedim(-1, 1)[:, 1:].float()
        else:
            wanted = references.reshape(logits.shape).float()
            loss = functional.binary_cross_entropy_with_logits(logits, wanted)
            shares = logits.sigmoid()
        return loss + _soft_dice_loss(shares, wanted) if self.dice else loss


def _soft_dice_loss(shares: Tensor, wanted: Tensor) -> Tensor:
    axes = (0, *range(2, shares.ndim))
    overlap = (shares * wanted).sum(axes)
    total = shares.sum(axes) + wanted.sum(axes)
    return 1 - ((2 * overlap + _SMOOTH) / (total + _SMOOTH)).mean()


def are_masks(references: Tensor) -> bool:
    """Whether these are masks and not class numbers."""
    return references.ndim > 1


def answered(logits: Tensor, references: Tensor) -> Prediction:
    """Raw planes of a network as an audit reads them."""
    exclusive = references.ndim == logits.ndim - 1
    if exclusive and logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    names = tuple(str(i) for i in range(logits.shape[1]))
    return Prediction(logits, Segmentation(names, exclusive))


def mask_scores(logits: Tensor, references: Tensor) -> dict[str, float]:
    """Mean Dice over the images, under the policy for empty masks, the Dice + CE loss, and n."""
    found = scores(answered(logits, references), references.long())
    return {
        "dice": found.double().mean().item(),
        "loss": MaskLoss()(logits.double(), references.long()).item(),
        "n": len(references),
    }


def mask_estimates(
    logits: Tensor, references: Tensor, *, classes: tuple[str, ...], cases: Sequence[str] | None
) -> dict[str, list[float | None]]:
    """Value, low and high end of each mask metric, as an audit's clean cell has them.

    `dice_where_any` is the Dice over the images whose reference is not empty, which is what most
    papers report; `foreground` is the share of an image's pixels that is drawn as any class.

    Args:
        logits: (n, planes, *spatial).
        references: label maps or planes.
        classes: names.
        cases: patient or other unit of independence per image; each its own by default.
    """
    prediction = answered(logits, references)
    decided = planes(prediction.decisions, prediction).numpy()
    expected = planes(references.long(), prediction).numpy()
    regions = [
        [compare(a, b) for a, b in zip(*pair, strict=True)]
        for pair in zip(decided, expected, strict=True)
    ]
    n = len(references)
    single = np.zeros(n, dtype=np.intp)
    rows = {
        "finite": prediction.finite.numpy(),
        "score": scores(prediction, references.long()).numpy(),
        "trial": single,
        **{
            f"region_{name}": np.array([[getattr(r, name) for r in row] for row in regions])
            for name in regions[0][0].__slots__
        },
    }
    design = Design(np.arange(n) if cases is None else codes(np.array(cases)), single)
    task = TaskInfo("segmentation", classes)
    every = {name: registry.create("metrics", name).measure(rows, task) for name in METRICS}
    drawn = np.where((rows["region_expected"] > 0).any(axis=1), rows["score"], np.nan)
    every["dice_where_any"] = Ratio(drawn, np.ones(n))
    every["foreground"] = Ratio(decided.any(axis=1).reshape(n, -1).mean(axis=1), np.ones(n))
    found: dict[str, list[float | None]] = {}
    for name, measured in every.items():
        seed = name.removesuffix("_where_any")  # the same draws
        one = estimate(measured, design, confidence=CONFIDENCE, resamples=RESAMPLES, name=seed)
        found[name] = [one.value, one.low, one.high]
    return found
