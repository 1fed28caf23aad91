"""Additive Gaussian noise, as of an under-exposed detector.

Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", arXiv 1903.12261, section 3 and its code's constants (ImageNet-C).

| code | meaning | value at severity 1 / 2 / 3 / 4 / 5 |
|---|---|---|
| sigma | standard deviation, as a share of the bounds' width | .08 / .12 / .18 / .26 / .38 |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from typing_extensions import override

from palpate.corruptions.base import Corruption
from palpate.perturbation import draw_normal
from palpate.types import Bounds, Images


@final
@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """x + N(0, σ²) per pixel and channel, clipped to the bounds."""

    SIGMA: ClassVar[tuple[float, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    @override
    def _disturb(self, images: Images, bounds: Bounds, seeds: Sequence[int]) -> Images:
        sigma = self.SIGMA[self.severity - 1] * (bounds.high - bounds.low)
        return (images + sigma * draw_normal(images, seeds)).clamp(bounds.low, bounds.high)
