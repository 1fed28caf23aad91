"""Tensor aliases with named axes, tasks, bounds, batches and predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from palpate.errors import DataError

Images = Float[Tensor, "batch channel *spatial"]
Logits = Float[Tensor, "batch classes *plane"]
References = Int[Tensor, "batch *shape"]
PerSample = Float[Tensor, " batch"]
PerSampleColumn = Float[Tensor, "batch *ones"]
Flags = Bool[Tensor, " batch"]
Tokens = Int[Tensor, "batch token"]
Mask = Bool[Tensor, "batch 1 *spatial"]
AnyTensor = Shaped[Tensor, "..."]


class Bounds(NamedTuple):
    """Smallest and largest legal input value; budgets are in the same units."""

    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Classification:
    """One class out of several.

    Attributes:
        classes: names, in the order of the logits. A target may have one logit per class or, for
            two classes, a single logit z, which is handled as the pair [0, z].
        positive: index of the class that sensitivity speaks of; None for the macro average.

    Raises:
        DataError: no such class.
    """

    classes: tuple[str, ...]
    positive: int | None = None

    def __post_init__(self) -> None:
        if self.positive is not None and self.positive not in range(len(self.classes)):
            raise DataError(
                f"positive: expected the number of a class, 0 to {len(self.classes) - 1}, got"
                f" {self.positive!r}"
            )


@dataclass(frozen=True)
class MultiLabel:
    """Any subset of several labels, one sigmoid logit each.

    Attributes:
        classes: names, in the order of the logits.
    """

    classes: tuple[str, ...]


@dataclass(frozen=True)
class Segmentation:
    """A mask per class.

    Attributes:
        classes: names, in the order of the planes. One logit plane means foreground against
            background and is handled as the pair [0, z] when `exclusive`.
        exclusive: True for softmax planes with one label per pixel, False for sigmoid planes.
    """

    classes: tuple[str, ...]
    exclusive: bool = True


@dataclass(frozen=True)
class PromptedSegmentation:
    """A foreground mask chosen by a text prompt, one sigmoid plane."""

    classes: tuple[str, ...] = ("foreground",)
    exclusive: bool = False


Task = Classification | MultiLabel | Segmentation | PromptedSegmentation


@dataclass(frozen=True)
class Batch:
    """Model inputs that travel together.

    Attributes:
        images: (batch, channel, *spatial), float32, within the dataset's bounds.
        references: class indices (batch,), label vectors (batch, classes), label maps
            (batch, *spatial) or mask planes (batch, classes, *spatial).
        samples: one id per image.
        cases: one patient or study id per image.
        sites: one subgroup name per image, empty strings if unknown.
        prompts: one text per image for prompted tasks.
        wordings: kind of prompt -> one text per image, what else could be asked.
    """

    images: Images
    references: References
    samples: tuple[str, ...]
    cases: tuple[str, ...]
    sites: tuple[str, ...]
    prompts: tuple[str, ...] | None = None
    wordings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def with_images(self, images: Images) -> "Batch":
        """The same samples with other pixels."""
        return replace(self, images=images)

    def with_prompts(self, prompts: tuple[str, ...]) -> "Batch":
        """The same samples with other questions."""
        return replace(self, prompts=prompts)


@dataclass(frozen=True)
class Prediction:
    """What a target answers, as tensors.

    Attributes:
        logits: (batch, classes, *spatial); a one-logit head has already become the pair [0, z].
        task: how the logits are to be read.
    """

    logits: Logits
    task: Task

    @property
    def finite(self) -> Flags:
        """Whether every logit of the sample is finite; the argmax of NaN would be class 0."""
        return torch.isfinite(self.logits).flatten(1).all(dim=1)

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude each other (softmax) or not (sigmoid)."""
        return isinstance(self.task, Classification) or getattr(self.task, "exclusive", False)

    @property
    def probabilities(self) -> Logits:
        """Softmax over the class axis, or sigmoid per class; same shape as the logits."""
        return self.logits.softmax(dim=1) if self.exclusive else self.logits.sigmoid()

    @property
    def decisions(self) -> References:
        """Class indices (batch, *spatial) or 0/1 planes of the logits' shape.

        Meaningless where `finite` is False: check it first.
        """
        return winners(self.logits) if self.exclusive else (self.logits > 0).long()


def winners(logits: Tensor) -> Tensor:
    """Class of the largest logit, the first of equals; (batch, class, *spatial) loses axis 1.

    As `argmax` over the class axis, which takes thirteen times as long on masks on a CPU.
    """
    return logits.max(dim=1).indices
