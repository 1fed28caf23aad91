"""What an attack increases: one loss value per sample, whatever the task."""

import torch
from torch.nn import functional

from palpate.types import Logits, PerSample, References


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
