"""Networks of the segmentation-models-pytorch library: any architecture with any encoder."""

from dataclasses import dataclass, field
from typing import Any, Literal, final

from torch import nn
from typing_extensions import override

from palpate.errors import TargetError, UnknownComponent, nearest
from palpate.targets._masks import MaskSource


@final
@dataclass(frozen=True)
class Smp(MaskSource):
    """A network of smp with fresh weights or those of `weights`.

    Attributes:
        architecture: smp name, such as "unet" or "unetplusplus".
        encoder: smp name, such as "resnet18" or "efficientnet-b7".
        encoder_weights: "imagenet" to start from the encoder that the library downloads, empty for
            a fresh one; not looked at where there are `weights`.
        arguments: passed on to smp.create_model.
    """

    architecture: str = "unet"
    encoder: str = "resnet18"
    encoder_weights: Literal["", "imagenet"] = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        try:
            import segmentation_models_pytorch as smp
        except ImportError:
            raise TargetError("smp targets need the extra: pip install 'palpate[vision]'") from None
        architectures = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
        encoders = smp.encoders.get_encoder_names()
        if self.architecture not in architectures:
            raise UnknownComponent(
                f"no smp architecture named {self.architecture!r};"
                f" {nearest(self.architecture, architectures)}"
            )
        if self.encoder not in encoders and not self.encoder.startswith("tu-"):
            raise UnknownComponent(
                f"no smp encoder named {self.encoder!r}; {nearest(self.encoder, encoders)}"
            )
        pretrained = self.encoder_weights if self.weights is None else ""
        try:
            return smp.create_model(
                self.architecture,
                encoder_name=self.encoder,
                encoder_weights=pretrained or None,
                in_channels=channels,
                classes=classes,
                **self.arguments,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            if pretrained and isinstance(error, OSError):  # no network, and no copy on the disk
                raise TargetError(
                    f"smp: expected to download the {pretrained} weights of {self.encoder}, got"
                    f" {type(error).__name__}: {reason}; give weights, or leave encoder_weights"
                    " empty"
                ) from None
            raise TargetError(
                f"smp {self.architecture} with {self.encoder}: {type(error).__name__}: {reason}"
            ) from error

    @override
    def default_label(self) -> str:
        return f"{self.architecture} {self.encoder}"
