"""What a head gives: how many planes, and where the logits are in what a model returned."""

from typing import Any

from torch import Tensor

from palpate.errors import TargetError
from palpate.types import Segmentation, Task


def unwrap(output: Any, name: str) -> Tensor:
    """A tensor, `.logits`, or a dict's "logits" or "out".

    Raises:
        TargetError: none of these.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, dict):
        for key in ("logits", "out"):
            if isinstance(output.get(key), Tensor):
                return output[key]
    raise TargetError(
        f"{name}: expected a tensor, an object with .logits, or a dict with 'logits' or 'out',"
        f" got {type(output).__name__}"
    )


def mask_planes(task: Task, *, two_planes: bool) -> int:
    """Planes of a segmentation head: one for background against one class, else one per class."""
    exclusive = isinstance(task, Segmentation) and task.exclusive
    return 1 if exclusive and len(task.classes) == 2 and not two_planes else len(task.classes)
