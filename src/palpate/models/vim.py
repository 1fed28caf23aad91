"""Vim (Vision Mamba), an image classifier that scans patches forwards and backwards.

Source: Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State
Space Model" (2024), section 3, in the form of its published code (class token in the middle, both
directions averaged), whose state dicts load here unchanged.

| code name        | meaning                                    | symbol             | section   |
|------------------|--------------------------------------------|--------------------|-----------|
| `depth`          | blocks                                     | L                  | 3.4       |
| `width`          | channels of a token                        | D                  | 3.4       |
| `inner`          | channels inside a block, twice the width   | E                  | 3.4       |
| `d_state`        | states per inner channel                   | N                  | 3.4       |
| `rank`           | inner size of the map to the step          | R                  | Mamba 3.6 |
| `patch_embed`    | patches to tokens                          | W                  | 3.2       |
| `cls_token`      | the token that is classified               | t_cls              | 3.2       |
| `pos_embed`      | one learnt vector per position             | E_pos              | 3.2       |
| `in_proj`        | token to sequence and gate                 | Linear x, z        | alg. 1    |
| `conv1d`         | causal convolution, one filter per channel | Conv1d             | alg. 1    |
| `x_proj`         | sequence to (step, B, C)                   | Linear B, C, Delta | alg. 1    |
| `dt_proj`        | rank to the raw step; bias of the step     | Parameter Delta    | alg. 1    |
| `A_log`, `D`     | log of minus the state matrix; skip weight | Parameter A        | alg. 1    |
| `*_b`, `A_b_log` | the same of the backward direction         | o = backward       | alg. 1    |
| `norm_f`, `head` | last norm; class token to logits           | Norm, MLP          | 3.2       |

Names of attributes are those of the published state dicts.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from palpate.errors import UnknownComponent, nearest
from palpate.models._layers import DropPath
from palpate.models._ss2d import initial_step_bias
from palpate.models._state import plain_state
from palpate.scan import selective_scan

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"depth": 24, "width": 192, "image_size": 224, "patch_size": 16},
    "small": {"depth": 24, "width": 384, "image_size": 224, "patch_size": 16},
    "base": {"depth": 24, "width": 768, "image_size": 224, "patch_size": 16},
    "nano": {"depth": 8, "width": 64, "image_size": 32, "patch_size": 4},
}

CONV_LENGTH: Final = 4
NORM_FLOOR: Final = 1e-5


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _causal_convolution(inner: int) -> nn.Conv1d:
    return nn.Conv1d(inner, inner, CONV_LENGTH, groups=inner, padding=CONV_LENGTH - 1)


def _step_projection(rank: int, inner: int) -> nn.Linear:
    """Weights that keep the variance, and a bias that starts at a sensible step."""
    projection = nn.Linear(rank, inner)
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    # Published: so for the forward direction alone; the backward bias starts at 0, which the paper
    # does not ask for.
    projection.bias = nn.Parameter(initial_step_bias((inner,)))
    return projection


class Mixer(nn.Module):
    """Gated selective scan of tokens in both directions (algorithm 1).

    Tokens (batch, token, width) in and out. `scan_backend` names the backend of
    `palpate.scan.selective_scan`; both directions go through it in one call.
    """

    def __init__(self, width: int, *, d_state: int = 16, scan_backend: str = "auto") -> None:
        super().__init__()
        inner, rank = 2 * width, math.ceil(width / 16)
        self.rank, self.d_state, self.scan_backend = rank, d_state, scan_backend
        rates = torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(inner, 1)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.act = nn.SiLU()
        self.conv1d = _causal_convolution(inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = _step_projection(rank, inner)
        self.A_log = nn.Parameter(rates.clone())
        self.D = nn.Parameter(torch.ones(inner))
        self.conv1d_b = _causal_convolution(inner)
        self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj_b = _step_projection(rank, inner)
        self.A_b_log = nn.Parameter(rates.clone())
        self.D_b = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def _scan(self, sequences: Tensor) -> Tensor:
        """Scan (batch, direction, inner, token); same shape out."""
        to_parts = torch.stack((self.x_proj.weight, self.x_proj_b.weight))
        to_steps = torch.stack((self.dt_proj.weight, self.dt_proj_b.weight))
        # One product per sample and direction, so that a sample's rounding does not depend on how
        # many others are in the batch.
        step, to_state, from_state = torch.matmul(to_parts, sequences).split(
            (self.rank, self.d_state, self.d_state), dim=2
        )
        y = selective_scan(
            sequences.flatten(1, 2),
            torch.matmul(to_steps, step).flatten(1, 2),
            -torch.exp(_wide(torch.cat((self.A_log, self.A_b_log)))),
            to_state,
            from_state,
            _wide(torch.cat((self.D, self.D_b))),
            delta_bias=_wide(torch.cat((self.dt_proj.bias, self.dt_proj_b.bias))),
            backend=self.scan_backend,
        )
        return y.view_as(sequences)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scan (batch, token, width); same shape out."""
        count = tokens.shape[1]
        x, gate = self.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)
        there = self.act(self.conv1d(x)[..., :count])
        back = self.act(self.conv1d_b(x.flip(-1))[..., :count])
        y = self._scan(torch.stack((there, back), dim=1))
        mean = (y[:, 0] + y[:, 1].flip(-1)) / 2
        return self.out_proj((mean * nn.functional.silu(gate)).transpose(1, 2))


class Block(nn.Module):
    """Norm, mixer, sum; the sum is kept in float32 or wider, whatever the weights are in."""

    def __init__(
        self, width: int, *, d_state: int, drop_path: float, scan_backend: str = "auto"
    ) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=NORM_FLOOR)
        self.mixer = Mixer(width, d_state=d_state, scan_backend=scan_backend)
        self.drop_path = DropPath(drop_path)

    def forward(self, residual: Tensor) -> Tensor:
        """(batch, token, width); same shape out."""
        normed = self.norm(residual.to(self.norm.weight.dtype))
        return residual + self.drop_path(self.mixer(normed))


class Patches(nn.Module):
    """Patches of (batch, channel, height, width), row by row, as (batch, token, width)."""

    def __init__(self, in_chans: int, width: int, *, patch_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, kernel_size=patch_size, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        """Images in, tokens out; rows and columns that do not fill a patch are dropped."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Vim(nn.Module):
    """Vim: images (batch, channel, height, width) of one size to logits (batch, class).

    Args:
        depth: Blocks.
        width: Channels of a token.
        num_classes: Logits.
        image_size: Height and width of the images in pixels, or one number for both.
        patch_size: Side of a patch in pixels.
        stride: Pixels from one patch to the next; None for `patch_size`. The published networks
            fine-tuned at finer grain have 8.
        in_chans: Image channels.
        d_state: States per scanned channel.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0.
        scan_backend: Backend of `palpate.scan.selective_scan`.

    Raises:
        ValueError: if the images are smaller than a patch; on call, if they have another shape.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int,
        *,
        image_size: int | tuple[int, int],
        patch_size: int = 16,
        stride: int | None = None,
        in_chans: int = 3,
        d_state: int = 16,
        drop_path_rate: float = 0.1,
        scan_backend: str = "auto",
    ) -> None:
        super().__init__()
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(sides) < patch_size:
            raise ValueError(
                f"Vim: expected an image size of at least one patch of {patch_size} pixels a side;"
                f" got {tuple(sides)}"
            )
        stride = stride or patch_size
        tokens = math.prod((side - patch_size) // stride + 1 for side in sides)
        self.image_shape = (in_chans, *sides)
        self.patch_embed = Patches(in_chans, width, patch_size=patch_size, stride=stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.layers = nn.ModuleList(
            Block(
                width,
                d_state=d_state,
                drop_path=drop_path_rate * index / max(depth - 1, 1),
                scan_backend=scan_backend,
            )
            for index in range(depth)
        )
        self.norm_f = nn.RMSNorm(width, eps=NORM_FLOOR)
        self.head = nn.Linear(width, num_classes)
        self._initialise(depth)

    def _initialise(self, depth: int) -> None:
        """The published initialisation: small embeddings, outputs of blocks shrunk by the depth."""
        projection = self.patch_embed.proj
        nn.init.trunc_normal_(projection.weight, std=projection.weight[0].numel() ** -0.5)
        nn.init.zeros_(projection.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.head.bias)
        for tensor in (self.head.weight, self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("out_proj.weight"):
                    parameter.div_(math.sqrt(depth))

    def no_weight_decay(self) -> set[str]:
        """Names of embeddings and of scan parameters, which weight decay would pull off range."""
        kinds = {"pos_embed", "cls_token", "A_log", "A_b_log", "D", "D_b"}
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in kinds}

    def features(self, images: Tensor) -> Tensor:
        """The class token after all blocks, normed: (batch, width)."""
        if tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"Vim: expected images (batch, {expected}), the size it was built for; got shape"
                f" {tuple(images.shape)}"
            )
        patches = self.patch_embed(images)
        middle = patches.shape[1] // 2
        token = self.cls_token.expand(len(patches), -1, -1)
        tokens = torch.cat((patches[:, :middle], token, patches[:, middle:]), dim=1)
        residual = _wide(tokens + self.pos_embed)
        for block in self.layers:
            residual = block(residual)
        return self.norm_f(residual[:, middle].to(self.norm_f.weight.dtype))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, class) of images (batch, channel, height, width)."""
        return self.head(self.features(images))


def vim(
    variant: str,
    *,
    num_classes: int,
    in_chans: int = 3,
    image_size: int | tuple[int, int] | None = None,
) -> Vim:
    """Build a named Vim with random weights.

    Args:
        variant: "tiny", "small" or "base" as published (224 pixels, patches of 16), or our "nano"
            for images of 28 to 64 pixels (patches of 4).
        num_classes: Logits.
        in_chans: Image channels.
        image_size: Height and width in pixels, or one number for both; None for the variant's own:
            224 as published, 32 for "nano".

    Raises:
        UnknownComponent: if there is no such variant.
        ValueError: if the images are smaller than a patch.
    """
    if variant not in VARIANTS:
        raise UnknownComponent(f"no Vim variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = dict(VARIANTS[variant])
    if image_size is not None:
        config["image_size"] = image_size
    return Vim(**config, num_classes=num_classes, in_chans=in_chans)


def official_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a Vim checkpoint, ready for `load_state_dict(strict=True)`.

    Args:
        checkpoint: A bare state dict, or one under "model", "state_dict" or "model_state_dict".

    Raises:
        CheckpointError: if nothing in it is a state dict.
    """
    return plain_state(checkpoint, who="Vim")
