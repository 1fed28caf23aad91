"""MedMamba, an image classifier of convolutions and selective scans.

Source: Yue and Li, "MedMamba: Vision Mamba for Medical Image Classification" (2024), section 3, in
the form of its published code of June 2024, whose state dicts load here unchanged.

| code name            | meaning                                     | symbol          | section |
|----------------------|---------------------------------------------|-----------------|---------|
| `depths`             | blocks per stage                            | -               | 3.2     |
| `dims`               | channels per stage                          | C, 2C, 4C, 8C   | 3.2     |
| `patch_embed`        | patches to channels                         | patch embedding | 3.2     |
| `SSConvSSM`          | convolution half, scan half, shuffle        | SS-Conv-SSM     | 3.3     |
| `conv33conv33conv11` | convolution half of the block               | Conv-Branch     | 3.3     |
| `self_attention`     | scan half of the block                      | SSM-Branch      | 3.3     |
| `PatchMerging`       | halves the image, doubles the channels      | patch merging   | 3.2     |
| `head`               | pooled channels to logits                   | classifier      | 3.2     |

Names of attributes are those of the published state dicts.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from palpate.errors import CheckpointError, UnknownComponent, nearest
from palpate.models._layers import DropPath, PatchEmbed, PatchMerging, Stage
from palpate.models._ss2d import SS2D
from palpate.models._state import plain_state

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"depths": (2, 2, 4, 2), "dims": (96, 192, 384, 768)},
    "small": {"depths": (2, 2, 8, 2), "dims": (96, 192, 384, 768)},
    "base": {"depths": (2, 2, 12, 2), "dims": (128, 256, 512, 1024)},
    "nano": {"depths": (1, 1, 2), "dims": (32, 64, 128), "patch_size": 2},
    "micro": {"depths": (2, 2, 4), "dims": (64, 128, 256), "patch_size": 2},
}

STEM_BIAS: Final = 0.5


class SSConvSSM(nn.Module):
    """One block: half of the channels convolved, half scanned, then shuffled (section 3.3)."""

    def __init__(
        self, width: int, *, d_state: int, drop_path: float, scan_backend: str = "auto"
    ) -> None:
        super().__init__()
        half = width // 2
        self.ln_1 = nn.LayerNorm(half)
        self.self_attention = SS2D(half, d_state=d_state, scan_backend=scan_backend)
        self.drop_path = DropPath(drop_path)
        self.conv33conv33conv11 = nn.Sequential(
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, kernel_size=3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, kernel_size=3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, kernel_size=1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last features; same shape out."""
        left, right = x.chunk(2, dim=-1)
        scanned = self.drop_path(self.self_attention(self.ln_1(right)))
        convolved = self.conv33conv33conv11(left.permute(0, 3, 1, 2).contiguous())
        return torch.stack((convolved.permute(0, 2, 3, 1), scanned), dim=-1).flatten(-2) + x


class MedMamba(nn.Module):
    """MedMamba: images (batch, channel, height, width) to logits (batch, class).

    Height and width need not be equal. Rows and columns that do not fill a patch or a merging are
    dropped, as in the published code.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage, even, doubling from one stage to the next.
        num_classes: Logits.
        in_chans: Image channels.
        d_state: States per scanned channel.
        patch_size: Side of a patch in pixels.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0.
        scan_backend: Backend of `palpate.scan.selective_scan`.

    Raises:
        ValueError: if `depths` and `dims` do not fit together; on call, if the images have the
            wrong shape or are too small for the number of stages.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        num_classes: int,
        *,
        in_chans: int = 3,
        d_state: int = 16,
        patch_size: int = 4,
        drop_path_rate: float = 0.1,
        scan_backend: str = "auto",
    ) -> None:
        super().__init__()
        doubling = all(b == 2 * a for a, b in pairwise(dims))
        if len(depths) != len(dims) or not dims or dims[0] % 2 or not doubling:
            raise ValueError(
                "MedMamba: expected one depth per width and even widths that double from stage to"
                f" stage; got depths {tuple(depths)}, dims {tuple(dims)}"
            )
        self.in_chans, self.patch_size = in_chans, patch_size
        self.smallest_side = patch_size * 2 ** (len(dims) - 1)
        last = max(sum(depths) - 1, 1)
        rates = iter([drop_path_rate * block / last for block in range(sum(depths))])
        self.patch_embed = PatchEmbed(in_chans, dims[0], patch_size=patch_size)
        self.layers = nn.ModuleList(
            Stage(
                [
                    SSConvSSM(
                        width, d_state=d_state, drop_path=next(rates), scan_backend=scan_backend
                    )
                    for _ in range(depth)
                ],
                PatchMerging(width) if width != dims[-1] else None,
            )
            for depth, width in zip(depths, dims, strict=True)
        )
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(_initialise)
        # Published: 0. A patch norm without bias keeps no trace of a patch's brightness, and grey
        # images have little else; this start gained 0.01 to 0.02 AUC in cross-validation.
        assert self.patch_embed.proj.bias is not None
        nn.init.uniform_(self.patch_embed.proj.bias, -STEM_BIAS, STEM_BIAS)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters of the scan, which weight decay would pull out of their range."""
        kinds = ("A_logs", "Ds", "dt_projs_bias")
        return {name for name, _ in self.named_parameters() if name.endswith(kinds)}

    def features(self, images: Tensor) -> Tensor:
        """Features before pooling, channels last: (batch, height, width, channel)."""
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise ValueError(
                f"MedMamba: expected images (batch, {self.in_chans}, height, width);"
                f" got shape {tuple(images.shape)}"
            )
        if min(images.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"MedMamba: {len(self.layers)} stages with patches of {self.patch_size} need images"
                f" of at least {self.smallest_side} pixels a side; got shape {tuple(images.shape)}"
            )
        x = self.patch_embed(images)
        for stage in self.layers:
            x = stage(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, class) of images (batch, channel, height, width)."""
        return self.head(self.features(images).mean(dim=(1, 2)))


def _initialise(module: nn.Module) -> None:
    """The published initialisation of linear layers and convolutions."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)


def medmamba(variant: str, *, num_classes: int, in_chans: int = 3) -> MedMamba:
    """Build a named MedMamba with random weights.

    Args:
        variant: "tiny", "small" or "base" as published (images of 32 pixels or more a side), or
            our "nano" and "micro" for images of 28 to 64 pixels.
        num_classes: Logits.
        in_chans: Image channels.

    Raises:
        UnknownComponent: if there is no such variant.
    """
    if variant not in VARIANTS:
        raise UnknownComponent(f"no MedMamba variant {variant!r}; {nearest(variant, VARIANTS)}")
    return MedMamba(**VARIANTS[variant], num_classes=num_classes, in_chans=in_chans)


def official_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a MedMamba checkpoint, ready for `load_state_dict(strict=True)`.

    Args:
        checkpoint: A bare state dict, or one under "model", "state_dict" or "model_state_dict".

    Raises:
        CheckpointError: if nothing in it is a state dict, or it is of the older layout.
    """
    state = plain_state(checkpoint, who="MedMamba")
    if any("finalconv11" in key for key in state):
        raise CheckpointError(
            "MedMamba: this checkpoint has 'finalconv11' layers, the layout from before April 2024:"
            " its blocks end in a 1x1 convolution instead of a channel shuffle, so its weights"
            " cannot be used in this network; train again or use a checkpoint of the later code"
        )
    return state
