"""Random numbers hang on names, never on positions.

seed = hash of (campaign, cell, sample id, trial).

A batch therefore gives the same result as its samples one by one, whatever the batch size, the
worker count or the order. `cell` is the canonical spec of the perturbation, without target, shard
and trial count, so two models meet the same noise (paired comparison) and the first 100 trials of
a campaign of 1,000 are those of a campaign of 100.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

_MASK = (1 << 63) - 1  # torch and numpy generators both take a non-negative 63-bit seed


@dataclass(frozen=True, slots=True)
class Seeds:
    """Source of every random number of one cell.

    Attributes:
        campaign: seed of the audit file.
        cell: canonical spec of the perturbation.
        trial: number of the draw or fault, from 0.
    """

    campaign: int = 0
    cell: str = ""
    trial: int = 0

    def at(self, trial: int) -> "Seeds":
        """Return the same source for another trial."""
        return replace(self, trial=trial)

    def shared(self) -> int:
        """Seed of what all samples of the trial have in common, such as a fault in a weight."""
        return self._hash("")

    def per_sample(self, samples: Iterable[str]) -> list[int]:
        """One seed for each sample id."""
        return [self._hash(f"sample:{sample}") for sample in samples]

    def _hash(self, what: str) -> int:
        text = f"{self.campaign}\x00{self.cell}\x00{self.trial}\x00{what}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") & _MASK
