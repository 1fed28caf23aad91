"""Which word a number earns: "breaks", "weakens", "no loss shown" and the like.

No word here says that a model is robust or safe: at most, that no loss was shown.
"""

from collections.abc import Sequence
from typing import Final, Literal

from palpate.record import Record
from palpate.statistics.cells import Cells
from palpate.statistics.paired import Difference, way
from palpate.statistics.strata import WorstFault
from palpate.statistics.summary import Row

_ROUNDING: Final = 1e-9

Finding = Literal[
    "breaks",
    "can break",
    "weakens",
    "may weaken",
    "no loss shown",
    "cannot judge",
    "could not test",
    "not tested",
]

MEANINGS: tuple[tuple[str, str], ...] = (
    (
        "breaks",
        (
            "weakens or may weaken, and the interval's upper end is no better than always giving"
            " the most frequent answer (other tasks: than half of the clean score), or balanced"
            " accuracy cannot be told from that of always giving one answer"
        ),
    ),
    ("can break", "one of the faults drawn took the score to that level; the rate is in the text"),
    (
        "weakens",
        (
            "lower than on the same clean samples, beyond chance (of attacks, under all of one"
            " budget together where that leaves less); of faults, one that was drawn did so"
        ),
    ),
    (
        "may weaken",
        (
            "so on its own, but not after correction for the number of disturbances, or not in"
            " more cases than gained"
        ),
    ),
    ("no loss shown", "no such difference, which is no proof that there is none"),
    (
        "cannot judge",
        (
            "no difference, but the clean model is no better than guessing either, its interval"
            " reaches down to broken, a check of the audit on itself failed, or the attack could"
            " not act on samples enough to hide one"
        ),
    ),
    ("could not test", "the disturbance could not act, or its cells failed"),
)


def chance_level(record: Record) -> float | None:
    """Score of always giving the most frequent answer; None where that means nothing.

    It means nothing for masks and several labels, nor where the data hold one class alone.
    """
    counts = _reference_counts(record)
    return max(counts) / sum(counts) if len(counts) > 1 else None


def classes_present(record: Record) -> int:
    """Classes of which the data hold a sample; 0 where a sample has no single class."""
    return len(_reference_counts(record))


def _reference_counts(record: Record) -> list[int]:
    cells = Cells(record)
    clean = cells.finished("none") if cells.task.kind == "classification" else []
    if not clean:
        return []
    reference = record.samples(clean[0])["reference"][:, 0].tolist()
    return [reference.count(c) for c in set(reference)]


def finding(
    row: Row,
    clean: Row | None,
    difference: Difference | None,
    *,
    chance: float | None,
    confidence: float,
) -> Finding:
    """Judge one disturbance of one model.

    Args:
        row: the number under it, or under all attacks of one budget together.
        clean: of the same model; None where it is not known.
        difference: paired, of the row's samples to the clean ones.
        chance: from `chance_level`.
        confidence: of the intervals.
    """
    if clean is None or clean.value is None or row.high is None or difference is None:
        return "could not test"
    limit = _limit(clean, chance)
    if difference.high < 0:
        if limit is not None and row.high <= limit:
            return "breaks"
        down = way(difference.value, gains=difference.gains, losses=difference.losses) < 0
        sure = down and (difference.p_holm or 0.0) < 1 - confidence
        return "weakens" if sure else "may weaken"
    if _guesses(clean, chance):
        return "cannot judge"
    if limit is not None and clean.value + difference.low <= limit:
        return "cannot judge"  # from no loss to broken, all is possible
    # samples that the attack could not act on are not robust, though they lost nothing
    hidden = row.value is not None and row.value < clean.value + difference.value - _ROUNDING
    return "cannot judge" if hidden and row.high < clean.value else "no loss shown"


def fault_finding(
    clean: Row | None, worst: Sequence[WorstFault], *, chance: float | None
) -> Finding:
    """What single faults can do counts, however rare: a mean over many faults would hide it.

    Args:
        clean: of the model; None where it is not known.
        worst: its worst faults, single ones where there are any.
        chance: from `chance_level`.
    """
    harmful = [w for w in worst if w.score < w.clean]
    if not harmful:
        guesses = clean is not None and _guesses(clean, chance)
        return "cannot judge" if guesses else "no loss shown"
    limit = _limit(clean, chance)
    broken = limit is not None and any(w.score <= limit < w.clean for w in harmful)
    return "can break" if broken else "weakens"


def _guesses(clean: Row, chance: float | None) -> bool:
    return chance is not None and (clean.low is None or clean.low <= chance)


def _limit(clean: Row | None, chance: float | None) -> float | None:
    """Score at or below which a model counts as broken."""
    if chance is None and clean is not None and clean.value is not None:
        return clean.value / 2
    return chance
