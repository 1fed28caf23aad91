"""Occlusion base: coverage 0 is the identity; a component says which pixels are hidden."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from typing_extensions import override

from palpate.errors import ConfigError
from palpate.perturbation import ImagePerturbation
from palpate.registry import Number
from palpate.types import Bounds, Images, Mask


@dataclass(frozen=True)
class Occlusion(ImagePerturbation):
    """Base of all occlusions.

    Attributes:
        coverage: share of the area that is hidden, 0 to 1.
        fill: value put there: "zero" for the lowest legal value (black), "mean" for the sample's
            mean per channel.
        trials: independent draws per sample.
    """

    family: ClassVar[str] = "occlusions"
    dose: ClassVar[str] = "coverage"

    coverage: Number = field(default=0.5, kw_only=True)
    fill: Literal["zero", "mean"] = field(default="zero", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.coverage <= 1:
            raise ConfigError(f"coverage: expected 0 to 1, got {self.coverage}")
        if self.trials < 1:
            raise ConfigError(f"trials: expected 1 or more, got {self.trials}")

    @abstractmethod
    def _hidden(self, images: Images, seeds: Sequence[int]) -> Mask:
        """Boolean (batch, 1, *spatial), true where hidden; one mask per sample."""

    @final
    @property
    @override
    def is_identity(self) -> bool:
        return self.coverage == 0

    @final
    @override
    def _disturb(self, images: Images, bounds: Bounds, seeds: Sequence[int]) -> Images:
        hidden = self._hidden(images, seeds)
        axes = tuple(range(2, images.ndim))
        value = (
            images.mean(dim=axes, keepdim=True).clamp(bounds.low, bounds.high)
            if self.fill == "mean"
            else torch.full_like(images[:, :1], bounds.low)
        )
        return torch.where(hidden, value, images)
