"""Another window, level and gamma for the same picture: the grey values that a reader may turn.

u → clamp((u − level) / width)^γ, as the grey-scale transform of DICOM part 3, C.11.2, with a gamma
behind it. A picture that was cut to its window before comes back darker or brighter, never with
what was cut away.

| code | meaning | at severity 5 | why |
|---|---|---|---|
| level | shift of the window's middle, share of the range | ± 0.25 | 100 HU in a window of 400 HU |
| width | factor on the window's width | 1/2 to 2 | soft tissue (400 HU) against liver (150 HU) |
| gamma | exponent behind the window | 1/2 to 2 | within MedMNIST-C, arXiv 2406.17536: 0.4 to 2 |
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from typing_extensions import override

from palpate.attacks._parametric import Parameters, ParametricAttack, grid
from palpate.attacks._projection import shaped
from palpate.errors import ConfigError
from palpate.registry import Number
from palpate.types import Bounds, Images

_DARK = 1e-6  # below it the power's slope is infinite; its value is 0


@final
@dataclass(frozen=True)
class WindowLevel(ParametricAttack):
    """The worst remapping of the grey values within limits, the same for every pixel and channel.

    Attributes:
        level: largest shift of the window's middle at severity 5, as a share of the bounds' width.
        width: largest factor on the window's width at severity 5, and its inverse; 1 for none.
        gamma: largest exponent at severity 5, and its inverse; 1 for none.
        places: points along each of the three in the grid that is tried before the gradients.
    """

    restarts: int = field(default=1, kw_only=True)

    level: Number = 0.25
    width: Number = 2.0
    gamma: Number = 2.0
    places: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.level < 1 and self.width >= 1 and self.gamma >= 1):
            raise ConfigError(
                "expected a level in [0, 1), and width and gamma of 1 or more, got"
                f" {self.level}, {self.width} and {self.gamma}"
            )
        if self.places < 1:
            raise ConfigError(f"places: expected 1 or more, got {self.places}")

    @override
    def count(self, images: Images) -> int:
        return 3

    @override
    def points(self) -> list[tuple[float, ...]]:
        return grid(self.places, self.places, self.places)

    @property
    @override
    def first_step(self) -> float:
        return 1 / max(1, self.places - 1)

    @override
    def transformed(self, images: Images, parameters: Parameters, bounds: Bounds) -> Images:
        low, range_ = bounds.low, bounds.high - bounds.low
        shift, stretch, power = (self.share * parameters).unbind(dim=1)
        wide = shaped(torch.exp(stretch * math.log(self.width)), images)
        exponent = shaped(torch.exp(power * math.log(self.gamma)), images)
        seen = (images - low) / range_ - 0.5 - shaped(shift * self.level, images)
        seen = (seen / wide + 0.5).clamp(0, 1)
        bright = seen > _DARK
        made = torch.where(bright, seen.clamp(min=_DARK) ** exponent, torch.zeros_like(seen))
        return (made * range_ + low).clamp(bounds.low, bounds.high)
