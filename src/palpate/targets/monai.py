"""Networks of the MONAI library by class name, in two dimensions."""

import inspect
from dataclasses import dataclass, field
from typing import Any, Final, final

from torch import nn
from typing_extensions import override

from palpate.errors import TargetError, UnknownComponent, nearest
from palpate.targets._masks import MaskSource

# what these two leave to the caller
_DEFAULTS: Final = {
    name: {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
    for name in ("UNet", "AttentionUnet")
}
_CONTRACT: Final = {"spatial_dims", "in_channels", "out_channels"}


@final
@dataclass(frozen=True)
class Monai(MaskSource):
    """A 2-D network of monai.networks.nets with fresh weights or those of `weights`.

    Attributes:
        network: class name, such as "UNet", "SegResNet", "SwinUNETR".
        arguments: passed on to the class; UNet and AttentionUnet have four levels of 16 to 128
            channels unless these say otherwise.
    """

    network: str = "UNet"
    arguments: dict[str, Any] = field(default_factory=dict)

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        try:
            from monai.networks import nets
        except ImportError:
            raise TargetError(
                "monai targets need the extra: pip install 'palpate[medical]'"
            ) from None
        known = {name: made for name, made in vars(nets).items() if _segments(made)}
        if self.network not in known:
            raise UnknownComponent(
                f"no 2-D segmentation network of MONAI named {self.network!r};"
                f" {nearest(self.network, known)}"
            )
        network = known[self.network]
        settings = {**_DEFAULTS.get(network.__name__, {}), **self.arguments}
        try:
            return network(spatial_dims=2, in_channels=channels, out_channels=classes, **settings)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise TargetError(f"monai {self.network}: {type(error).__name__}: {reason}") from error

    @override
    def default_label(self) -> str:
        return f"MONAI {self.network}"


def _segments(made: Any) -> bool:
    """Whether it is a network that takes the three arguments which every U-shaped one has."""
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        return False
    return set(inspect.signature(made).parameters) >= _CONTRACT
