"""Layers that several networks of this folder share.

Images between layers are channels last, (batch, height, width, channel).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: in training, drop whole samples with `probability`, rescale the rest.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (2016), section 3.
    """

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out; the identity in evaluation mode."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = torch.empty(len(x), *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * (mask.bernoulli_(keep) / keep)


class PatchEmbed(nn.Module):
    """Non-overlapping patches of (batch, channel, height, width) to channels-last features."""

    def __init__(self, in_chans: int, width: int, *, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Images in, (batch, height/patch, width/patch, width) out; remainders are dropped."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Each 2x2 neighbourhood to one position with twice the channels; odd rows are dropped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channel) to (batch, height//2, width//2, 2*channel)."""
        height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
        quarters = [x[:, row:height:2, col:width:2] for col in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1)))


class Stage(nn.Module):
    """Blocks of one width, and the merging that follows all stages but the last."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last features through the stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)
