"""Vim networks (models/vim.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor, nn
from typing_extensions import override

from palpate.errors import TargetError
from palpate.targets.base import TargetSource
from palpate.types import Classification, MultiLabel


@final
@dataclass(frozen=True)
class Vim(TargetSource):
    """A Vim (Vision Mamba); it takes images of one size, and nano is made for 28 to 64 pixels.

    Attributes:
        variant: size of the network.
        image_size: height and width of the images in pixels, or one number for both; None for the
            variant's own, 224 as published and 32 for nano.
    """

    serves: ClassVar = (Classification, MultiLabel)

    variant: Literal["nano", "tiny", "small", "base"] = "nano"
    image_size: int | tuple[int, int] | None = None

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        from palpate.models.vim import vim

        try:
            return vim(
                self.variant, num_classes=classes, in_chans=channels, image_size=self.image_size
            )
        except ValueError as error:
            raise TargetError(f"image_size: {error}") from None

    @override
    def own_state(self, state: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
        from palpate.models.vim import official_state

        return official_state(state)

    @override
    def default_label(self) -> str:
        return f"Vim {self.variant}"
