"""Bits flip at random in the stored weights and buffers."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

from typing_extensions import override

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._dealt import Dealing, DealtFault
from palpate.faults._memory import Memory, binomial, burst, distinct, unstuck
from palpate.faults._sites import FaultSite, Place, Scope, Stratum, places, strata
from palpate.faults._storage import StorageFormat, deployed, stored_all
from palpate.faults.base import Fault
from palpate.perturbation import World
from palpate.registry import Number
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch


@final
@dataclass(frozen=True)
class WeightBitFlip(DealtFault):
    """Distinct bits, uniform over the stored memory of the model, are upset for one trial.

    The memory is every parameter and buffer, tied ones once. Trial k's bits depend on the seed and
    on k alone, never on the samples.

    Attributes:
        flips: upsets per trial.
        bit_error_rate: if more than 0, the number of upsets is binomial instead: this chance for
            every bit of the stratum. Fractions such as "1/1000000" are taken.
        bits: `all`, one field of a floating number, or bit positions (0 is the lowest).
        scope: `model` draws from the whole memory. Others deal the trials in turn, and draw
            uniformly within: `layer` or `module` (what owns the tensors), `group` (stem, stages,
            parts of a scan, norms, head), `tensor`, `bit` position, `field` (with the top exponent
            bit apart; needs the fewest trials for the rate of the whole memory), `group_field` and
            `layer_field` (for maps).
        format: what the memory holds: `stored` for the model's own format, or the format that it is
            deployed in (the golden prediction is then the rounded model's).
        tensors: tensor names, module paths or glob patterns to draw from; empty for all.
        burst: adjacent bits that one upset hits, from the drawn one upwards and on into the next
            word; cut at the end of the tensor.
        words: adjacent words in which it hits the same bits, as a row of DRAM cells does.
        effect: `flip`, or `stuck_at_0` or `stuck_at_1`, which changes only bits of other value.
    """

    version: ClassVar[int] = 2

    flips: int = 1
    bit_error_rate: Number = 0.0
    bits: _bits.Bits = "all"
    scope: Scope = "model"
    format: StorageFormat = "stored"
    tensors: tuple[str, ...] = ()
    burst: int = 1
    words: int = 1
    effect: Literal["flip", "stuck_at_0", "stuck_at_1"] = "flip"

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("flips", "trials", "burst", "words")}
        if min(counts.values()) < 1:
            raise ConfigError(f"weight_bit_flip: expected counts of at least 1, got {counts}")
        if not 0 <= self.bit_error_rate <= 1:
            raise ConfigError(
                f"weight_bit_flip: expected bit_error_rate in [0, 1], got {self.bit_error_rate}"
            )
        if self.bit_error_rate and self.flips != 1:
            raise ConfigError("weight_bit_flip: expected flips or bit_error_rate, got both")
        self._check_margin(single=self.flips == 1 and not self.bit_error_rate)

    def _check(self, target: Target) -> None:
        self._firsts([stratum.size for stratum in self._strata(self._places(target))])

    @override
    def seeds(self, campaign: int) -> Seeds:
        # a curve over flips or over error rates compares nested sets of bits
        return Fault.seeds(replace(self, flips=1, bit_error_rate=0.0, margin=0.0), campaign)

    @contextmanager
    def _dealing(self, target: Target, batch: Batch) -> Generator[Dealing]:
        found = self._places(target)

        def enter(drawn: list[FaultSite], notes: dict[str, Any]) -> AbstractContextManager[World]:
            hit = self._spread(drawn)
            flipped = hit if self.effect == "flip" else unstuck(hit, int(self.effect[-1]))
            return memory.flipped(flipped, notes, drawn=hit)

        with deployed(found), Memory.prepared(target, batch) as memory:
            yield Dealing(self._strata(found), enter)

    @override
    def _drawn(self, stratum: Stratum, seed: int) -> list[FaultSite]:
        count = self.flips
        if self.bit_error_rate:
            count = binomial(stratum.size, self.bit_error_rate, seed)
        return stratum.draw(count, seed)

    def _spread(self, upsets: list[FaultSite]) -> list[FaultSite]:
        if self.burst == self.words == 1:
            return upsets
        hit = [burst(anchor, bits=self.burst, words=self.words) for anchor in upsets]
        return distinct([site for sites in hit for site in sites])

    def _places(self, target: Target) -> list[Place]:
        return stored_all(places(target.module, self.tensors), self.format)

    def _strata(self, memory: list[Place]) -> list[Stratum]:
        dealt = strata(memory, self.scope, bits=self.bits, who=self)
        small = next((s for s in dealt if s.size < self.flips), None)
        if small is not None:
            raise ConfigError(
                f"{self!r}: expected at most {small.size} flips, the bits of"
                f" {small.name or 'the root'}, got {self.flips}"
            )
        return dealt
