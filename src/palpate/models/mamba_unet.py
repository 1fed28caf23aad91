"""Mamba U-Net, a segmentation network whose encoder and decoder are selective scans.

Source: Ruan, Li and Xiang, "VM-UNet: Vision Mamba UNet for Medical Image Segmentation" (2024), in
the form of its published code of March 2024, whose state dicts load here unchanged. Sections: O
architecture overview, V VSS block.

| code name        | meaning                                        | symbol           | section |
|------------------|------------------------------------------------|------------------|---------|
| `depths`         | blocks per stage of the encoder                | -                | O       |
| `depths_decoder` | blocks per stage of the decoder, deepest first | -                | O       |
| `dims`           | channels per stage, from fine to coarse        | C, 2C, 4C, 8C    | O       |
| `patch_embed`    | patches to channels                            | Patch Embedding  | O       |
| `VSSBlock`       | norm, scan, sum                                | VSS block        | V       |
| `self_attention` | gated scan along four directions               | SS2D             | V       |
| `downsample`     | halves the image, doubles the channels         | Patch Merging    | O       |
| `upsample`       | doubles the image, halves the channels         | Patch Expanding  | O       |
| `final_up`       | patches back to pixels                         | Final Projection | O       |
| `final_conv`     | channels to planes of logits                   | Final Projection | O       |

What enters an encoder stage is added to what enters the decoder stage at the same width and size,
for all stages but the finest, as in the published code. Names of attributes are those of its state
dicts.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from torch import Tensor, nn

from palpate.errors import UnknownComponent, nearest
from palpate.models._layers import DropPath, PatchEmbed, PatchMerging, Stage
from palpate.models._ss2d import SS2D
from palpate.models._state import plain_state

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {
        "depths": (2, 2, 2, 2),
        "depths_decoder": (2, 2, 2, 1),
        "dims": (96, 192, 384, 768),
    },
    "small": {
        "depths": (2, 2, 9, 2),
        "depths_decoder": (2, 9, 2, 2),
        "dims": (96, 192, 384, 768),
    },
    "nano": {"depths": (1, 1, 2), "depths_decoder": (1, 1, 1), "dims": (32, 64, 128)},
}

PREFIX: Final = "vmunet."
COUNTERS: Final = ("total_ops", "total_params")


class VSSBlock(nn.Module):
    """Norm, scan along four directions, sum."""

    def __init__(
        self, width: int, *, d_state: int, drop_path: float, scan_backend: str = "auto"
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.self_attention = SS2D(width, d_state=d_state, scan_backend=scan_backend)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last features; same shape out."""
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class PatchExpand(nn.Module):
    """Each position to factor x factor positions with fewer channels, normed."""

    def __init__(self, width: int, out: int, *, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor * factor * out, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channel) to (batch, factor*height, factor*width, out)."""
        cells = self.expand(x).unflatten(-1, (self.factor, self.factor, -1))
        return self.norm(cells.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class UpStage(nn.Module):
    """The expanding that precedes all stages but the coarsest, then blocks of one width."""

    def __init__(self, blocks: Sequence[nn.Module], upsample: nn.Module | None) -> None:
        super().__init__()
        self.upsample = upsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last features through the stage."""
        if self.upsample is not None:
            x = self.upsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class MambaUnet(nn.Module):
    """Mamba U-Net: images (batch, channel, height, width) to planes (batch, class, height, width).

    Height and width need not be equal.

    Args:
        depths: Blocks per stage of the encoder.
        dims: Channels per stage, doubling from one stage to the next; the first a multiple of the
            patch size.
        num_classes: Planes of logits.
        depths_decoder: Blocks per stage of the decoder, coarsest first.
        in_chans: Image channels.
        d_state: States per scanned channel.
        patch_size: Side of a patch in pixels.
        drop_path_rate: Stochastic depth of the coarsest blocks; it rises linearly from 0 along the
            encoder and falls back to 0 along the decoder.
        scan_backend: Backend of `palpate.scan.selective_scan`.

    Raises:
        ValueError: if depths and widths do not fit together; on call, if the images have other
            channels or sides that are no multiple of `side_unit`.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        num_classes: int,
        *,
        depths_decoder: Sequence[int],
        in_chans: int = 3,
        d_state: int = 16,
        patch_size: int = 4,
        drop_path_rate: float = 0.2,
        scan_backend: str = "auto",
    ) -> None:
        super().__init__()
        lengths = {len(depths), len(depths_decoder), len(dims)}
        doubling = all(b == 2 * a for a, b in pairwise(dims))
        if len(lengths) != 1 or not dims or dims[0] % patch_size or not doubling:
            raise ValueError(
                "MambaUnet: expected as many depths on either side as widths, which start at a"
                f" multiple of {patch_size} and double from stage to stage; got depths"
                f" {tuple(depths)} and {tuple(depths_decoder)}, dims {tuple(dims)}"
            )
        self.in_chans, self.side_unit = in_chans, patch_size * 2 ** (len(dims) - 1)

        def blocks(width: int, rates: Sequence[float]) -> list[nn.Module]:
            return [
                VSSBlock(width, d_state=d_state, drop_path=rate, scan_backend=scan_backend)
                for rate in rates
            ]

        self.patch_embed = PatchEmbed(in_chans, dims[0], patch_size=patch_size)
        self.layers = nn.ModuleList(
            Stage(blocks(width, rates), PatchMerging(width) if width != dims[-1] else None)
            for width, rates in zip(dims, _rates(depths, drop_path_rate), strict=True)
        )
        falling = [rates[::-1] for rates in _rates(depths_decoder[::-1], drop_path_rate)[::-1]]
        self.layers_up = nn.ModuleList(
            UpStage(
                blocks(width, rates),
                PatchExpand(2 * width, width, factor=2) if width != dims[-1] else None,
            )
            for width, rates in zip(reversed(dims), falling, strict=True)
        )
        self.final_up = PatchExpand(dims[0], dims[0] // patch_size, factor=patch_size)
        self.final_conv = nn.Conv2d(dims[0] // patch_size, num_classes, kernel_size=1)
        self.apply(_initialise)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters of the scan, which weight decay would pull out of their range."""
        kinds = ("A_logs", "Ds", "dt_projs_bias")
        return {name for name, _ in self.named_parameters() if name.endswith(kinds)}

    def forward(self, images: Tensor) -> Tensor:
        """Planes of logits (batch, class, height, width) of images of the same height and width."""
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise ValueError(
                f"MambaUnet: expected images (batch, {self.in_chans}, height, width);"
                f" got shape {tuple(images.shape)}"
            )
        if any(side == 0 or side % self.side_unit for side in images.shape[2:]):
            raise ValueError(
                f"MambaUnet: {len(self.layers)} stages need images whose height and width are"
                f" multiples of {self.side_unit} pixels; got shape {tuple(images.shape)}"
            )
        x, skips = self.patch_embed(images), list[Tensor]()
        for stage in self.layers:
            skips.append(x)
            x = stage(x)
        for index, stage in enumerate(self.layers_up):
            x = stage(x + skips[-index] if index else x)
        return self.final_conv(self.final_up(x).permute(0, 3, 1, 2).contiguous())


def _rates(depths: Sequence[int], highest: float) -> list[list[float]]:
    """Stochastic depth per stage and block, linear from 0 to `highest`."""
    count = sum(depths)
    rising = iter([highest * block / max(count - 1, 1) for block in range(count)])
    return [[next(rising) for _ in range(depth)] for depth in depths]


def _initialise(module: nn.Module) -> None:
    """The published initialisation of linear layers; convolutions keep torch's own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)


def mamba_unet(variant: str, *, num_classes: int, in_chans: int = 3) -> MambaUnet:
    """Build a named Mamba U-Net with random weights.

    Args:
        variant: "tiny" as the paper trained it, "small" with the default depths of its code (sides
            that are multiples of 32 pixels), or our "nano" for images of 64 to 128 pixels
            (multiples of 16).
        num_classes: Planes of logits.
        in_chans: Image channels.

    Raises:
        UnknownComponent: if there is no such variant.
    """
    if variant not in VARIANTS:
        raise UnknownComponent(f"no Mamba U-Net variant {variant!r}; {nearest(variant, VARIANTS)}")
    return MambaUnet(**VARIANTS[variant], num_classes=num_classes, in_chans=in_chans)


def official_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a VM-UNet checkpoint, ready for `load_state_dict(strict=True)`.

    The published network wraps this one as `vmunet`, and its training code counts operations in
    buffers that are saved with the weights; both are taken off.

    Args:
        checkpoint: A bare state dict, or one under "model", "state_dict" or "model_state_dict".

    Raises:
        CheckpointError: if nothing in it is a state dict.
    """
    state = plain_state(checkpoint, who="Mamba U-Net")
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.rpartition(".")[2] not in COUNTERS
    }
