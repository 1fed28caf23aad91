"""What reaches the network: is the input normalised once, twice, or not as it was in training?"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from palpate.attacks._loss import cross_entropy
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Batch

_LEARNED: Final = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
)
_FIRST: Final = (nn.modules.conv._ConvNd, nn.Linear)


def preparation(target: Target, batch: Batch) -> dict[str, Any]:
    """Losses as declared and without the target's normalisation, and what the network itself does.

    Args:
        target: the bare model.
        batch: some samples.

    Returns:
        `declared` and `raw`: loss and score per sample, and `shift`, the distance of the first
        batch norm's input from what it met in training, in its deviations (None without one).
        `own`: factor and offset by which the network rescales its input before its first weights,
        per channel; None where it does not, or in no such simple way.
    """
    declared = _met(target, batch)
    found: dict[str, Any] = {
        "mean": list(target.mean),
        "std": list(target.std),
        "bounds": list(target.bounds),
        "declared": declared,
        "own": _own(target, batch),
    }
    if set(target.mean) != {0.0} or set(target.std) != {1.0}:
        found["raw"] = _met(replace(target, mean=(0.0,), std=(1.0,)), batch)
    return found


def _met(target: Target, batch: Batch) -> dict[str, Any]:
    with _first_input(target.module, nn.modules.batchnorm._BatchNorm) as seen:
        prediction = target.predict(batch)
    references = batch.references.to(prediction.logits.device)
    loss = cross_entropy(prediction.logits, references, exclusive=prediction.exclusive)
    return {
        "loss": loss.nan_to_num(1e9, posinf=1e9).tolist(),
        "score": scores(prediction, references).tolist(),
        "shift": _shift(*seen[0]) if seen else None,
    }


def _shift(norm: nn.Module, given: Tensor) -> float | None:
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if mean is None or variance is None:
        return None
    axes = [axis for axis in range(given.ndim) if axis != 1]
    return float(((given.mean(axes) - mean) / (variance + 1e-5).sqrt()).abs().median())


def _own(target: Target, batch: Batch) -> dict[str, list[float]] | None:
    """The affine map, channel by channel, between the target's input and the first weights'."""
    with _first_input(target.module, (*_LEARNED, *_FIRST)) as seen:
        target.predict(batch)
    if not seen or isinstance(seen[0][0], _LEARNED):
        return None  # a learned normalisation belongs to the model
    met = seen[0][1]
    images = batch.images.to(target.device)
    given = target.normalised(images)
    if met.shape != given.shape:
        return None
    factors: list[float] = []
    offsets: list[float] = []
    for channel in range(given.shape[1]):
        x, y = given[:, channel].flatten().double(), met[:, channel].flatten().double()
        spread = (x - x.mean()).square().mean()
        if not spread > 0:
            return None
        factor = float(((x - x.mean()) * (y - y.mean())).mean() / spread)
        offset = float(y.mean() - factor * x.mean())
        if not torch.allclose(factor * x + offset, y, atol=1e-3 * float(y.abs().max() + 1e-12)):
            return None
        factors.append(factor)
        offsets.append(offset)
    same = all(abs(f - 1) < 1e-3 for f in factors) and all(abs(o) < 1e-3 for o in offsets)
    return None if same else {"factor": factors, "offset": offsets}


@contextmanager
def _first_input(
    module: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]
) -> Generator[list[tuple[nn.Module, Tensor]]]:
    """Inside, the first call to a layer of these kinds is kept: the layer and its input."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, given: tuple[Any, ...]) -> None:
        if not seen and given and isinstance(given[0], Tensor):
            seen.append((layer, given[0].detach()))

    hooks = [m.register_forward_pre_hook(keep) for m in module.modules() if isinstance(m, kinds)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
