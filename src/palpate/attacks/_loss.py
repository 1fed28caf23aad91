"""What an attack increases: one loss value per sample, whatever the task.

| code | meaning | symbol | source |
|---|---|---|---|
| cross_entropy | softmax, or binary summed over labels | J | Goodfellow et al., arXiv 1412.6572 |
| margin | largest other less true logit | −z_y + max z_i | Carlini, Wagner, 1608.04644, f6 |
| dlr | margin over the gap of first and third logit | DLR | Croce, Hein, arXiv 2003.01690, eq. 6 |
| targeted_dlr | the same towards one class | Targeted-DLR | 2003.01690, eq. 7 |

DLR needs four classes here (its targeted form reads the fourth logit); with fewer, the margin does
its work. Losses on masks are in `_dense_loss`.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch.nn import functional

from palpate.attacks._dense_loss import PIXEL_LOSSES, PLANE_LOSSES, pixel_loss, plane_loss
from palpate.errors import ConfigError
from palpate.types import Classification, Logits, MultiLabel, PerSample, References, Task

LossName = Literal[
    "ce",
    "bce",
    "margin",
    "dlr",
    "dice",
    "dice_ce",
    "focal",
    "dice_focal",
    "segpgd",
    "cospgd",
    "jsd",
    "masked_ce",
    "masked_spherical",
]
_PIXEL: Final = ("segpgd", *PIXEL_LOSSES)  # classification is one pixel
_FLAT: Final = ("ce", "bce", *_PIXEL)
_DENSE: Final = (*PLANE_LOSSES, *_PIXEL)
_DLR_CLASSES: Final = 4
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Objective:
    """A loss to increase, or to decrease towards an aim.

    Attributes:
        loss: name.
        swap_arguments: call it with logits and reference exchanged (masks only).
        towards: the references are an aim: the loss is to fall.
    """

    loss: LossName = "ce"
    swap_arguments: bool = False
    towards: bool = False

    def __post_init__(self) -> None:
        if self.swap_arguments and self.loss not in PLANE_LOSSES:
            raise ConfigError(
                f"swap_arguments: expected a loss of {', '.join(PLANE_LOSSES)}, got {self.loss!r}"
            )

    def check(self, task: Task) -> None:
        """Refuse a loss that means nothing for the task.

        Raises:
            ConfigError: with the losses that do.
        """
        dense = not isinstance(task, Classification | MultiLabel)
        allowed = dict.fromkeys(_DENSE if dense else _FLAT)
        if isinstance(task, Classification) and len(task.classes) >= _DLR_CLASSES:
            allowed["dlr"] = None
        if self.loss not in allowed:
            raise ConfigError(
                f"loss: expected one of {', '.join(allowed)} for {type(task).__name__} of"
                f" {len(task.classes)} classes, got {self.loss!r}"
            )
        if self.swap_arguments and not dense:
            raise ConfigError(f"swap_arguments: expected masks, got {type(task).__name__}")

    def __call__(
        self, logits: Logits, references: References, *, exclusive: bool, progress: float = 0.0
    ) -> PerSample:
        """Value per sample, higher when the attack gets on.

        Args:
            logits: (batch, classes, *spatial).
            references: class indices (batch, *spatial) if exclusive, else 0/1 of the logits' shape.
            exclusive: softmax if true, sigmoid per class if not.
            progress: share of the steps that are done, for losses with a schedule.
        """
        value = self._value(logits, references, exclusive=exclusive, progress=progress)
        return -value if self.towards else value

    def _value(
        self, logits: Logits, references: References, *, exclusive: bool, progress: float
    ) -> PerSample:
        if self.loss == "ce" and not self.swap_arguments:
            return cross_entropy(logits, references, exclusive=exclusive)
        flat = logits.ndim == 2
        if flat and exclusive and self.loss == "margin":
            return margin(logits, references)
        if self.loss == "dlr":
            return dlr(logits, references)
        if flat:  # a sample is one pixel, or a multi-label sample one pixel of each plane
            logits, references = logits.unsqueeze(2), references.unsqueeze(references.ndim)
        if self.loss in PLANE_LOSSES:
            return plane_loss(
                self.loss, logits, references, exclusive=exclusive, swap=self.swap_arguments
            )
        return pixel_loss(self.loss, logits, references, exclusive=exclusive, progress=progress)


def cross_entropy(logits: Logits, references: References, *, exclusive: bool) -> PerSample:
    """Cross-entropy per sample; for dense tasks the mean over pixels.

    Args:
        logits: (batch, classes, *spatial).
        references: class indices (batch, *spatial) if exclusive, else 0/1 of the logits' shape.
        exclusive: softmax cross-entropy if true, binary cross-entropy summed over labels if not.

    Returns:
        (batch,), differentiable in the logits.
    """
    if exclusive:
        loss = functional.cross_entropy(logits, references, reduction="none")
        return loss if loss.ndim == 1 else loss.flatten(1).mean(dim=1)
    loss = functional.binary_cross_entropy_with_logits(
        logits, references.to(logits.dtype), reduction="none"
    )
    per_label = loss if loss.ndim == 2 else loss.flatten(2).mean(dim=2)
    return torch.sum(per_label, dim=1)


def margin(logits: Logits, labels: References) -> PerSample:
    """Largest other logit less the true one, (batch,); above 0 where the class is wrong."""
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.amax(dim=1) - true


def dlr(logits: Logits, labels: References) -> PerSample:
    """Difference of logits ratio: the margin on a scale of its own, (batch,)."""
    ranked = logits.sort(dim=1, descending=True).values
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + _TINY)


def targeted_margin(logits: Logits, labels: References, aims: References) -> PerSample:
    """Logit of the class aimed at less the true one, (batch,)."""
    return _at(logits, aims) - _at(logits, labels)


def targeted_dlr(logits: Logits, labels: References, aims: References) -> PerSample:
    """The targeted margin on a scale of its own, (batch,); needs four classes."""
    ranked = logits.sort(dim=1, descending=True).values
    scale = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + _TINY
    return targeted_margin(logits, labels, aims) / scale


def has_dlr(classes: int) -> bool:
    """Whether there are enough classes for DLR."""
    return classes >= _DLR_CLASSES


def _at(logits: Logits, labels: References) -> PerSample:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)
