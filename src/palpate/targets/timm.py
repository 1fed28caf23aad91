"""Networks of the timm library by name."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import nn
from typing_extensions import override

from palpate.errors import TargetError, UnknownComponent, nearest
from palpate.targets.base import TargetSource
from palpate.types import Classification, MultiLabel


@final
@dataclass(frozen=True)
class Timm(TargetSource):
    """A timm network with fresh weights or those of `weights`; nothing is downloaded.

    Attributes:
        model: timm name, such as "resnet18".
        small_stem: for ResNets on images of 28 to 64 pixels: a 3x3 stride-1 first convolution and
            no max-pooling.
        arguments: passed on to timm.create_model.
    """

    serves: ClassVar = (Classification, MultiLabel)

    model: str = "resnet18"
    small_stem: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        try:
            import timm
        except ImportError:
            raise TargetError(
                "timm targets need the extra: pip install 'palpate[vision]'"
            ) from None
        if not timm.is_model(self.model):
            known = timm.list_models()
            raise UnknownComponent(
                f"no timm model named {self.model!r}; {nearest(self.model, known)}"
            )
        network = timm.create_model(
            self.model, pretrained=False, num_classes=classes, in_chans=channels, **self.arguments
        )
        return _with_small_stem(network, self.model) if self.small_stem else network

    @override
    def default_label(self) -> str:
        return self.model


def _with_small_stem(network: nn.Module, model: str) -> nn.Module:
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise TargetError(f"small_stem: expected a ResNet with conv1 and maxpool, got {model}")
    network.conv1 = nn.Conv2d(
        first.in_channels, first.out_channels, kernel_size=3, stride=1, padding=1, bias=False
    )
    network.maxpool = nn.Identity()
    return network
