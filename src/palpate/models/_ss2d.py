"""SS2D: the selective scan of an image along four directions.

Source: Liu et al., "VMamba: Visual State Space Model" (2024), section 4.2 (version 0 of its code,
which MedMamba uses), on top of Gu and Dao, "Mamba" (2023).

| code name          | meaning                               | symbol            | section      |
|--------------------|---------------------------------------|-------------------|--------------|
| `DIRECTIONS`       | scan orders of the image              | 4                 | VMamba 4.2   |
| `width`            | channels in and out                   | C                 | VMamba 4.2   |
| `inner`            | channels inside, twice the width      | D                 | Mamba 3.4    |
| `d_state`          | states per channel                    | N                 | Mamba 2      |
| `rank`             | inner size of the map to the step     | R                 | Mamba 3.6    |
| `x_proj_weight`    | input to (step, B, C), per direction  | s_Delta, s_B, s_C | Mamba alg. 2 |
| `dt_projs_weight`  | rank to the raw step, per direction   | Broadcast         | Mamba 3.6    |
| `dt_projs_bias`    | bias of the raw step                  | Parameter         | Mamba 3.6    |
| `A_logs`           | logarithm of minus the state matrix   | log(-A)           | Mamba 3.6    |
| `Ds`               | skip weight                           | D                 | Mamba alg. 2 |
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from palpate.scan import selective_scan

DIRECTIONS: Final = 4
STEP_RANGE: Final = (1e-3, 0.1)
STEP_FLOOR: Final = 1e-4


def initial_step_bias(shape: tuple[int, ...]) -> Tensor:
    """Inverse softplus of steps drawn log-uniformly from `STEP_RANGE` (Mamba, section 3.6)."""
    low, high = (math.log(bound) for bound in STEP_RANGE)
    steps = torch.exp(torch.rand(shape) * (high - low) + low).clamp(min=STEP_FLOOR)
    return steps + torch.log(-torch.expm1(-steps))


class SS2D(nn.Module):
    """Gated selective scan of a channels-last image along four directions.

    Images (batch, height, width, channel) in and out, `width` channels. `scan_backend` names the
    backend of `palpate.scan.selective_scan`.
    """

    def __init__(self, width: int, *, d_state: int = 16, scan_backend: str = "auto") -> None:
        super().__init__()
        inner, rank = 2 * width, math.ceil(width / 16)
        self.rank, self.d_state, self.scan_backend = rank, d_state, scan_backend
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, kernel_size=3, padding=1, groups=inner)
        self.act = nn.SiLU()
        bound = inner**-0.5
        self.x_proj_weight = nn.Parameter(
            torch.empty(DIRECTIONS, rank + 2 * d_state, inner).uniform_(-bound, bound)
        )
        bound = rank**-0.5
        self.dt_projs_weight = nn.Parameter(
            torch.empty(DIRECTIONS, inner, rank).uniform_(-bound, bound)
        )
        self.dt_projs_bias = nn.Parameter(initial_step_bias((DIRECTIONS, inner)))
        rates = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_logs = nn.Parameter(rates.log().repeat(DIRECTIONS * inner, 1))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def _scan(self, x: Tensor) -> Tensor:
        """Scan (batch, inner, height, width) four ways; the sum has the same shape."""
        batch, inner, height, width = x.shape
        rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
        forward = torch.stack((rows, columns), dim=1)
        sequences = torch.cat((forward, forward.flip(-1)), dim=1)
        # One product per sample and direction: a larger one would make a sample's rounding
        # depend on how many others are in the batch.
        projected = torch.matmul(self.x_proj_weight, sequences)
        step, to_state, from_state = projected.split((self.rank, self.d_state, self.d_state), dim=2)
        y = selective_scan(
            sequences.flatten(1, 2),
            torch.matmul(self.dt_projs_weight, step).flatten(1, 2),
            -torch.exp(self.A_logs.float()),
            to_state,
            from_state,
            self.Ds.float(),
            delta_bias=self.dt_projs_bias.float().flatten(),
            backend=self.scan_backend,
        ).view(batch, DIRECTIONS, inner, height * width)
        there, back = y[:, :2], y[:, 2:].flip(-1)
        by_column = torch.stack((there[:, 1], back[:, 1])).unflatten(-1, (width, height))
        down, up = by_column.transpose(-1, -2).flatten(-2)
        return (there[:, 0] + back[:, 0] + down + up).unflatten(-1, (height, width))

    def forward(self, images: Tensor) -> Tensor:
        """Scan (batch, height, width, channel); same shape out."""
        x, gate = self.in_proj(images).chunk(2, dim=-1)
        x = self.act(self.conv2d(x.permute(0, 3, 1, 2).contiguous()))
        y = self.out_norm(self._scan(x).permute(0, 2, 3, 1).contiguous())
        return self.out_proj(y * nn.functional.silu(gate))
