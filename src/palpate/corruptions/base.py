"""Corruption base: severity 0 is the identity, 1 to 5 are physical settings in the component."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from typing_extensions import override

from palpate.errors import CapabilityError, ConfigError
from palpate.perturbation import ImagePerturbation
from palpate.types import Images


@dataclass(frozen=True)
class Corruption(ImagePerturbation):
    """Base of all corruptions.

    Attributes:
        severity: 0 (identity) to 5.
        trials: independent draws per sample.
    """

    family: ClassVar[str] = "corruptions"
    dose: ClassVar[str] = "severity"

    severity: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.severity <= 5:
            raise ConfigError(f"severity: expected 0 to 5, got {self.severity}")
        if self.trials < 1:
            raise ConfigError(f"trials: expected 1 or more, got {self.trials}")

    @final
    @property
    @override
    def is_identity(self) -> bool:
        return self.severity == 0


def require_2d(who: object, images: Images) -> None:
    """Refuse images that are not (batch, channel, height, width).

    Raises:
        CapabilityError: with the shape that came.
    """
    if images.ndim != 4:
        raise CapabilityError(
            f"{who!r}: expected images (batch, channel, height, width), got {tuple(images.shape)}"
        )
