"""Random patch drop: a share of the patches of a regular grid is missing.

Naseer et al., "Intriguing Properties of Vision Transformers", arXiv 2105.10497, section 3.1
(random PatchDrop). There one mask serves a whole batch; here every sample has its own.

| code | meaning | symbol |
|---|---|---|
| coverage | share of the patches that is dropped | M / N, information loss |
| patch_size | side of a patch in pixels | 16 at 224, a grid of 14 x 14 |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.errors import ConfigError
from palpate.occlusions.base import Occlusion
from palpate.perturbation import generators
from palpate.types import Images, Mask

_GRID = 14


@final
@dataclass(frozen=True)
class PatchDrop(Occlusion):
    """Drop round(coverage · N) of the N patches of each sample.

    Attributes:
        patch_size: pixels; None for 1/14 of the short side (16 at 224, 2 at 28). Patches at the
            far edges are smaller where the size does not divide.
    """

    patch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size is not None and self.patch_size < 1:
            raise ConfigError(f"patch_size: expected 1 or more, got {self.patch_size}")

    @override
    def _hidden(self, images: Images, seeds: Sequence[int]) -> Mask:
        spatial = images.shape[2:]
        patch = self.patch_size or max(1, min(spatial) // _GRID)
        grid = tuple(math.ceil(side / patch) for side in spatial)
        masks = [self._mask(grid, g) for g in generators(seeds)]
        hidden = torch.stack(masks).to(images.device).unsqueeze(1)
        for axis, side in enumerate(spatial, start=2):
            hidden = hidden.repeat_interleave(patch, dim=axis).narrow(axis, 0, side)
        return hidden

    def _mask(self, grid: tuple[int, ...], generator: torch.Generator) -> Tensor:
        patches = math.prod(grid)
        order = torch.randperm(patches, generator=generator)
        mask = torch.zeros(patches, dtype=torch.bool)
        mask[order[: round(self.coverage * patches)]] = True
        return mask.reshape(grid)
