"""The worst smooth shading, as of a coil: a multiplicative field, few numbers in log space.

x → x · exp(f), f a cubic B-spline on a mesh of control points: the field of N4 (Tustison et al.,
IEEE TMI 2010, section II), whose first level has one span: a cubic polynomial, of order 3 as that
of TorchIO's RandomBiasField.

| code | meaning | symbol |
|---|---|---|
| strength | largest absolute value of f, at severity 5 | – |
| spans | mesh elements along each axis | mesh resolution |

Limits: BrainWeb's strongest field, 40 % (Collins et al., IEEE TMI 1998), runs from 0.8 to 1.2,
about ± 0.2 in f: severity 2. Severity 5, ± 0.5 or 0.61 to 1.65, has the size of TorchIO's default
coefficient. That one limits each of ten coefficients, which an attack would let add up in a corner
to a factor of 150; here the limit holds for the field itself.
"""

from dataclasses import dataclass
from math import prod
from typing import final

import torch
from typing_extensions import override

from palpate.attacks._parametric import Parameters, ParametricAttack
from palpate.attacks._splines import control_points, field
from palpate.errors import ConfigError
from palpate.registry import Number
from palpate.types import Bounds, Images


@final
@dataclass(frozen=True)
class AdversarialBiasField(ParametricAttack):
    """Multiply by the smooth positive field that hurts most; the lowest legal value is no signal.

    One field serves all channels. What it lifts beyond the bounds is cut off, as by a stored
    picture. A field without any slope, a gain, is among those that are searched.

    Attributes:
        strength: largest absolute value of the field's logarithm at severity 5.
        spans: pieces along each axis; 1 is a cubic polynomial, more make finer shading.
    """

    strength: Number = 0.5
    spans: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength > 0 or self.spans < 1:
            raise ConfigError(
                "expected a strength above 0 and spans of 1 or more, got"
                f" {self.strength} and {self.spans}"
            )

    @override
    def count(self, images: Images) -> int:
        return prod(control_points(self.spans, images.ndim - 2))

    @override
    def transformed(self, images: Images, parameters: Parameters, bounds: Bounds) -> Images:
        sides = tuple(images.shape[2:])
        points = parameters.reshape(len(images), *control_points(self.spans, len(sides)))
        log = self.share * self.strength * field(points, sides, spans=self.spans)
        shaded = (images - bounds.low) * torch.exp(log).unsqueeze(1) + bounds.low
        return shaded.clamp(bounds.low, bounds.high)
