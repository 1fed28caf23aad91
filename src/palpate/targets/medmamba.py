"""MedMamba networks (models/medmamba.py)."""

from dataclasses import dataclass
from typing import Literal, final

from torch import nn
from typing_extensions import override

from palpate.targets.base import TargetSource


@final
@dataclass(frozen=True)
class Medmamba(TargetSource):
    """A MedMamba; nano and micro are made for images of 28 to 64 pixels.

    Attributes:
        variant: size of the network.
    """

    variant: Literal["micro", "nano", "tiny", "small", "base"] = "nano"

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        from palpate.models.medmamba import medmamba

        return medmamba(self.variant, num_classes=classes, in_chans=channels)

    @override
    def default_label(self) -> str:
        return f"MedMamba {self.variant}"
