"""Masks that an attack on a segmentation may aim at, made from the reference.

erase: nothing is left. shift: the mask moves by a quarter of the image's last side. grow: every
structure is dilated by a sixteenth of it. phantom: a disk of the first foreground class appears, a
sixteenth of the side in radius, as far from all structures as a 9 × 9 grid of places allows.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from palpate.errors import ConfigError
from palpate.types import (
    Classification,
    MultiLabel,
    PromptedSegmentation,
    References,
    Segmentation,
    Task,
)

Goal = Literal["break", "erase", "shift", "grow", "phantom"]
_PLACES = 9


def check_goal(goal: Goal, task: Task) -> None:
    """Refuse a mask as the aim where there are no masks.

    Raises:
        ConfigError: a classification task with another goal than "break".
    """
    if goal != "break" and isinstance(task, Classification | MultiLabel):
        raise ConfigError(f"goal: expected 'break' for {type(task).__name__}, got {goal!r}")


def aimed_at(goal: Goal, references: References, task: Task) -> References | None:
    """The masks to come near to, in the form of the references; None for "break".

    Args:
        goal: see the module.
        references: label maps (batch, *spatial), or 0/1 planes (batch, classes, *spatial).
        task: a segmentation.
    """
    if goal == "break":
        return None
    exclusive = isinstance(task, Segmentation | PromptedSegmentation) and task.exclusive
    planes = references.unsqueeze(1) if exclusive else references
    if goal == "erase":
        made = torch.zeros_like(planes)
    elif goal == "shift":
        made = planes.roll(planes.shape[-1] // 4, dims=-1)
    elif goal == "grow":
        made = _grown(planes)
    else:
        made = _with_phantom(planes)
    return made.squeeze(1) if exclusive else made


def _grown(planes: Tensor) -> Tensor:
    radius = max(1, planes.shape[-1] // 16)
    pool = functional.max_pool2d if planes.ndim == 4 else functional.max_pool3d
    wide = pool(planes.float(), 2 * radius + 1, stride=1, padding=radius).to(planes.dtype)
    return torch.where(planes > 0, planes, wide)  # a neighbour never overwrites a structure


def _with_phantom(planes: Tensor) -> Tensor:
    spatial = planes.shape[2:]
    grid = _points([torch.arange(n, device=planes.device) for n in spatial])
    places = _points(
        [torch.linspace(0.1, 0.9, _PLACES, device=planes.device) * (n - 1) for n in spatial]
    )
    radius = max(1.0, spatial[-1] / 16)
    made = planes.clone()
    for sample, mask in zip(made, planes, strict=True):
        structure = grid[(mask != 0).any(dim=0).flatten()]
        middle = (torch.tensor(spatial, device=planes.device) - 1) / 2
        if len(structure):
            gap = torch.cdist(places, structure).amin(dim=1)
            middle = places[int(gap.argmax())]
        disk = ((grid - middle).norm(dim=1) <= radius).reshape(spatial)
        sample[0][disk & (mask[0] == 0)] = 1
    return made


def _points(axes: list[Tensor]) -> Tensor:
    return torch.cartesian_prod(*(axis.float() for axis in axes)).reshape(-1, len(axes))
