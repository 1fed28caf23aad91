"""Turn, shift and scale, or bend, until the model fails: no grey value is invented.

Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the Landscape of Spatial Robustness", arXiv
1712.02779, section 3 and 4: gradients alone find weak turns, a grid finds the strong ones; here the
grid comes first and gradients finish. Limits at severity 5 are theirs (± 30°, 3 of 32 pixels).

"elastic" is a free-form deformation by cubic B-splines (Rueckert et al., IEEE TMI 1999) in place of
the flow of each pixel (Xiao et al., arXiv 1801.02612). Control points move less than 0.48 of their
distance, so that nothing is folded (Choi and Lee, 2000).

| code | meaning | symbol | section |
|---|---|---|---|
| rotation, translation | limits of the search | θ, δu, δv | 3 |
| angles, places | points of the grid: 31 turns, 5 shifts along each axis | – | 4 |

The reference mask goes where the pixels go: a turned picture is judged by a turned reference. It is
resampled linearly, plane by plane, and the largest plane wins; thin structures lose a little by
that alone, which `severity` near 0 shows. What comes in from outside is the lowest legal value, and
background.
"""

import math
from dataclasses import dataclass, field
from typing import Final, Literal, final

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from palpate.attacks import _splines
from palpate.attacks._gradient import Search
from palpate.attacks._parametric import Parameters, ParametricAttack, Walk, grid
from palpate.errors import ConfigError
from palpate.perturbation import Carry
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Bounds, Classification, Images, MultiLabel, References

_FOLD: Final = 0.48  # of the distance of control points
_RIGID: Final = 4  # a turn, two shifts, a scale


@final
@dataclass(frozen=True)
class Spatial(ParametricAttack):
    """The worst small movement of the picture, in the plane of its last two axes.

    Every slice of a volume moves alike.

    Attributes:
        kind: "rigid" (turn, shift, scale) or "elastic" (bend).
        rotation: largest turn at severity 5, degrees ("rigid").
        translation: largest shift along each axis at severity 5, as a share of the side; of each
            control point if "elastic".
        scaling: largest change of size at severity 5, 0.1 for factors from 1/1.1 to 1.1 ("rigid").
        angles: turns in the grid that is tried before the gradients ("rigid").
        places: shifts along each axis in the grid, and sizes where `scaling` is not 0 ("rigid").
        spans: pieces that each axis is bent in ("elastic").
    """

    restarts: int = field(default=1, kw_only=True)
    kind: Literal["rigid", "elastic"] = "rigid"
    rotation: Number = 30.0
    translation: Number = 0.1
    scaling: Number = 0.0
    angles: int = 31
    places: int = 5
    spans: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.rotation <= 180 and 0 <= self.translation < 1 and 0 <= self.scaling < 1):
            raise ConfigError(
                "expected a rotation of 0 to 180, translation and scaling in [0, 1), got"
                f" {self.rotation}, {self.translation} and {self.scaling}"
            )
        if min(self.angles, self.places, self.spans) < 1:
            raise ConfigError(
                "expected angles, places and spans of 1 or more, got"
                f" {self.angles}, {self.places} and {self.spans}"
            )
        if self.kind == "elastic" and self.translation * self.spans > _FOLD:
            raise ConfigError(
                f"expected translation times spans of at most {_FOLD} (no folding), got"
                f" {self.translation * self.spans:g}"
            )

    @override
    def count(self, images: Images) -> int:
        if self.kind == "rigid":
            return _RIGID
        return 2 * math.prod(_splines.control_points(self.spans, 2))

    @override
    def transformed(self, images: Images, parameters: Parameters, bounds: Bounds) -> Images:
        moved = self._moved(images - bounds.low, parameters) + bounds.low
        return moved.clamp(bounds.low, bounds.high)

    @override
    def carried(self, masks: References, parameters: Parameters, target: Target) -> References:
        if isinstance(target.task, Classification | MultiLabel):
            return masks
        if not target.is_exclusive:
            return (self._moved(masks.to(parameters), parameters) > 0.5).to(masks.dtype)
        classes = max(2, len(target.task.classes))
        planes = functional.one_hot(masks.long(), classes).movedim(-1, 1)
        # outside of the picture all planes are 0, and the first, the background, wins
        return self._moved(planes.to(parameters), parameters).argmax(dim=1).to(masks.dtype)

    @override
    def _carry(self, search: Search) -> Carry | None:
        assert isinstance(search, Walk)
        if isinstance(search.target.task, Classification | MultiLabel):
            return None
        parameters, target = search.parameters, search.target
        return lambda masks: self.carried(masks.to(parameters.device), parameters, target)

    @override
    def points(self) -> list[tuple[float, ...]]:
        if self.kind == "elastic":
            return []
        places = self.places if self.translation else 1
        sizes = self.places if self.scaling else 1
        return grid(self.angles if self.rotation else 1, places, places, sizes)

    @property
    @override
    def first_step(self) -> float:
        return 0.5 if self.kind == "elastic" else 1 / max(1, self.places - 1)

    def _moved(self, planes: Tensor, parameters: Parameters) -> Tensor:
        """Resampled linearly; 0 comes in from outside."""
        height, width = planes.shape[-2:]
        flat = planes.reshape(len(planes), -1, height, width)
        where = self._rigid if self.kind == "rigid" else self._elastic
        places = where(parameters, height, width)
        sizes = torch.tensor([width / 2, height / 2]).to(places)
        moved = functional.grid_sample(flat, places / sizes, align_corners=False)
        return moved.reshape(planes.shape)

    def _rigid(self, parameters: Parameters, height: int, width: int) -> Tensor:
        """Where each pixel comes from: (batch, height, width, 2) of x, y from the middle."""
        turn, across, down, larger = (self.share * parameters).unbind(dim=1)
        turn = turn * math.radians(self.rotation)
        larger = torch.exp(-larger * math.log1p(self.scaling))
        cos, sin = torch.cos(turn) * larger, torch.sin(turn) * larger
        shift = torch.stack([across * width, down * height], dim=1) * self.translation
        back = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], dim=1)
        from_here = _centred(height, width, parameters) - shift[:, None, None, :]
        return (back[:, None, None] * from_here.unsqueeze(-2)).sum(dim=-1)

    def _elastic(self, parameters: Parameters, height: int, width: int) -> Tensor:
        shape = _splines.control_points(self.spans, 2)
        points = (self.share * self.translation * parameters).reshape(-1, *shape)
        bent = _splines.field(points, (height, width), spans=self.spans)
        shift = bent.reshape(len(parameters), 2, height, width).movedim(1, -1)
        return _centred(height, width, parameters) - shift * torch.tensor([width, height]).to(shift)


def _centred(height: int, width: int, like: Tensor) -> Tensor:
    """Middle of each pixel, x and y from the middle of the picture, (1, height, width, 2)."""
    down = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5 - height / 2
    across = torch.arange(width, device=like.device, dtype=like.dtype) + 0.5 - width / 2
    rows, columns = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([columns, rows], dim=-1).unsqueeze(0)
