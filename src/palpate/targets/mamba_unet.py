"""Segmentation networks of selective scans (models/mamba_unet.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor, nn
from typing_extensions import override

from palpate.targets.base import TargetSource
from palpate.types import Segmentation


@final
@dataclass(frozen=True)
class MambaUnet(TargetSource):
    """A U-shaped Mamba in the manner of VM-UNet, one plane of logits per class.

    Attributes:
        variant: size of the network; nano takes sides that are multiples of 16, tiny and small of
            32 pixels.
    """

    serves: ClassVar = (Segmentation,)

    variant: Literal["nano", "tiny", "small"] = "nano"

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        from palpate.models.mamba_unet import mamba_unet

        return mamba_unet(self.variant, num_classes=classes, in_chans=channels)

    @override
    def own_state(self, state: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
        from palpate.models.mamba_unet import official_state

        return official_state(state)

    @override
    def default_label(self) -> str:
        return f"Mamba U-Net {self.variant}"
