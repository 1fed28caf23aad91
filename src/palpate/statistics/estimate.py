"""`Estimate`: a value that never travels without its interval; `Design`: how rows were drawn."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palpate.errors import ContractError


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: None where it is undefined.
        low: lower end; None where no honest interval exists.
        high: upper end; None likewise.
        confidence: level of the interval.
        n: rows that entered the value (decisions, not patients).
        units: independent units that these rows are worth; the interval rests on it.
        method: how the interval was made.
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    n: int
    units: float
    method: str

    def __post_init__(self) -> None:
        if self.low is None or self.high is None:
            return
        if self.value is None or not self.low <= self.value <= self.high:
            raise ContractError(f"expected an interval that holds its value, got {self!r}")


def undefined(confidence: float, *, n: int = 0, why: str) -> Estimate:
    """An estimate that has no value, and the reason."""
    return Estimate(None, None, None, confidence, n, 0.0, why)


@dataclass(frozen=True)
class Design:
    """How the rows of one cell were drawn.

    Two designs exist. Nested: each case (patient) was drawn, and everything below it (its images,
    the random draws on each) belongs to it alone. Crossed: each trial draws one fault that hits all
    cases, so a row belongs to a case and to a trial, and neither repeats independently.

    Attributes:
        cases: (rows,) codes of the patients.
        trials: (rows,) codes of the trials.
        crossed: whether one trial hits all cases.
    """

    cases: NDArray[np.intp]
    trials: NDArray[np.intp]
    crossed: bool = False

    def take(self, rows: NDArray[Any]) -> "Design":
        """The design of some of the rows."""
        return Design(codes(self.cases[rows]), codes(self.trials[rows]), self.crossed)


def codes(names: NDArray[Any]) -> NDArray[np.intp]:
    """Number the distinct entries from 0, in sorted order."""
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def rng(*names: object) -> np.random.Generator:
    """Generator seeded from names alone, so that a report can be rebuilt number for number."""
    text = "\x00".join(str(n) for n in names)
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    )
