"""Bits flip in the image as it is stored, before the model sees it."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._sites import Place, Stratum, describe, strata
from palpate.faults.base import Fault
from palpate.outcome import Status
from palpate.perturbation import Enter, World
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, Images


@final
@dataclass(frozen=True)
class InputBitFlip(Fault):
    """Distinct bits of one stored image flip, in every image at the same place.

    The file holds whole grey levels, from 0 at the lower bound to the largest code at the upper
    one. Pixels that no flip hits keep their value exactly, also where it lies between two levels.

    Attributes:
        flips: bits per image.
        bits: `all`, or bit positions (0 is the lowest).
        format: `uint8` as in a photograph or screen capture, `uint16` as in most DICOM files.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[frozenset[str]] = frozenset()

    flips: int = 1
    bits: _bits.Bits = "all"
    format: Literal["uint8", "uint16"] = "uint8"

    def __post_init__(self) -> None:
        if self.flips < 1 or self.trials < 1:
            raise ConfigError(
                f"input_bit_flip: expected flips and trials of at least 1, got flips={self.flips},"
                f" trials={self.trials}"
            )
        self._stratum(torch.empty((), device="meta"))

    def _check(self, target: Target) -> None:
        """Every target takes images: nothing to refuse."""

    @contextmanager
    def _ready(self, target: Target, batch: Batch) -> Generator[Enter]:
        stratum = self._stratum(batch.images[0])
        if stratum.size < self.flips:
            raise ConfigError(
                f"{self!r}: expected at most {stratum.size} flips, the bits of one image,"
                f" got {self.flips}"
            )

        @contextmanager
        def enter(seeds: Seeds) -> Generator[World]:
            sites = stratum.draw(self.flips, seeds.shared())
            elements, bits = [s.element for s in sites], [s.bit for s in sites]
            images = self._flipped(batch.images, elements, bits, bounds=target.bounds)
            notes = {
                "scope": "model",
                "stratum": stratum.name,
                "share": stratum.share,
                "flips": self.flips,
                "sites": [describe(site, before=None, after=None) for site in sites],
            }
            yield World(target, batch.with_images(images), (Status.OK,) * len(batch), notes=notes)

        yield enter

    def _stratum(self, image: torch.Tensor) -> Stratum:
        """Bits of one image, as a tensor without data."""
        fmt = _bits.format_named(self.format)
        codes = torch.empty(image.shape, dtype=fmt.dtype, device="meta")
        place = Place("input", "input", codes, codes, fmt, group="input")
        [stratum] = strata([place], "layer", bits=self.bits, who=self)
        return stratum

    def _flipped(
        self, images: Images, elements: list[int], bits: list[int], *, bounds: Bounds
    ) -> Images:
        top = (1 << _bits.format_named(self.format).width) - 1
        masks: dict[int, int] = {}
        for element, bit in zip(elements, bits, strict=True):
            masks[element] = masks.get(element, 0) ^ (1 << bit)
        where = torch.tensor(list(masks), device=images.device)
        mask = torch.tensor(list(masks.values()), device=images.device)
        flat = images.flatten(1).clone()
        width = bounds.high - bounds.low
        levels = ((flat[:, where].double() - bounds.low) / width * top).round().long()
        flat[:, where] = ((levels ^ mask) / top * width + bounds.low).to(images.dtype)
        return flat.clamp(*bounds).reshape(images.shape)
