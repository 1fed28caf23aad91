"""A search whose steps are taken in bfloat16, and whose finds are confirmed in float32.

Rounding to 8 bits seldom turns the sign of a gradient, but it may well call an input broken that is
not. Every score that the search reports is therefore measured in float32: of the last iterate, of
the point that bfloat16 calls the best, and of a sample before it leaves the batch.
"""

from dataclasses import dataclass, field

import torch
from typing_extensions import override

from palpate.attacks._gradient import Answer, Measure, Rows, Search
from palpate.targets._laid_out import FORMATS
from palpate.types import Flags, Images, Logits


@dataclass
class _Bfloat16Search(Search):
    """What bfloat16 says of the iterates; nothing of it is reported."""

    @override
    def answer(self, images: Images, rows: Rows | None = None) -> Logits:
        # the layout in which convolutions in bfloat16 are fastest; nothing of it is reported
        layout = FORMATS.get(images.ndim, torch.contiguous_format)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            logits = super().answer(images.contiguous(memory_format=layout), rows)
        return logits.to(images.dtype)


@dataclass
class RoughSearch(Search):
    """A search that asks for gradients in bfloat16; `confirm` it at the end.

    Attributes:
        leaving: whether samples leave at a score of 0, and must be confirmed at once.
        rough: the same search as bfloat16 sees it.
        confirmed: whose best point in `rough` was measured in float32, or is still the clean one.
    """

    leaving: bool = field(default=False, kw_only=True)
    rough: Search = field(init=False)
    confirmed: Flags = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rough = _Bfloat16Search(
            self.target,
            self.images,
            self.references,
            self.objective,
            tokens=self.tokens,
            aim=self.aim,
        )
        self.rough.course = self.course
        self.confirmed = torch.ones_like(self.felt)

    @override
    def ask(
        self,
        images: Images,
        *,
        rows: Rows | None = None,
        progress: float = 0.0,
        measure: Measure | None = None,
    ) -> Answer:
        best, spent = self.rough.best, self.rough.passes
        answer = self.rough.ask(images, rows=rows, progress=progress, measure=measure)
        self.passes += self.rough.passes - spent
        self.felt |= self.rough.felt
        self.confirmed &= (self.rough.best == best).flatten(1).all(dim=1)
        if self.leaving:
            self._measure((self.rough.score <= 0) & (self.score > 0))
        return answer

    @override
    def standing(self, rows: Rows | None = None) -> Rows:
        self.confirm()
        return super().standing(rows)

    @override
    def part(self, rows: Rows) -> "RoughSearch":
        plain = super().part(rows)
        return RoughSearch(
            plain.target,
            plain.images,
            plain.references,
            plain.objective,
            plain.aim,
            tokens=plain.tokens,
            leaving=self.leaving,
        )

    @override
    def join(self, part: Search, rows: Rows) -> None:
        assert isinstance(part, RoughSearch)
        part.confirm()
        super().join(part, rows)

    def confirm(self) -> None:
        """Measure in float32 what bfloat16 calls the best."""
        self._measure(torch.ones_like(self.confirmed))

    def _measure(self, wanted: Flags) -> None:
        rows = torch.nonzero(wanted & ~self.confirmed).flatten()
        if len(rows):
            self.look(self.rough.best[rows], rows=rows)
            self.confirmed = self.confirmed.index_fill(0, rows, value=True)
