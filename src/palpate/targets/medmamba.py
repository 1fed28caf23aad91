"""MedMamba networks (models/medmamba.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor, nn
from typing_extensions import override

from palpate.targets.base import TargetSource
from palpate.types import Classification, MultiLabel


@final
@dataclass(frozen=True)
class Medmamba(TargetSource):
    """A MedMamba; nano and micro are made for images of 28 to 64 pixels.

    Attributes:
        variant: size of the network.
    """

    serves: ClassVar = (Classification, MultiLabel)

    variant: Literal["micro", "nano", "tiny", "small", "base"] = "nano"

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        from palpate.models.medmamba import medmamba

        return medmamba(self.variant, num_classes=classes, in_chans=channels)

    @override
    def own_state(self, state: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
        from palpate.models.medmamba import official_state

        return official_state(state)

    @override
    def default_label(self) -> str:
        return f"MedMamba {self.variant}"
