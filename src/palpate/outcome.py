"""Plain numbers of one sample under one trial; the border between tensors and numbers."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from palpate.regions import Region

FOLLOWED: Final = "followed_"
"""Begins the names of a cell's arrays of the one sample that every cell of a model shows."""


class Verdict(StrEnum):
    """What a disturbance did to one decision, compared with the golden (undisturbed) one."""

    MASKED = "masked"  # same decision, or bit-identical output
    SDC = "sdc"  # another decision, without any notice
    DUE = "due"  # non-finite output: noticed, never a decision


class Status(StrEnum):
    """Whether the disturbance could do anything at all to this sample."""

    OK = "ok"
    NO_GRADIENT = "no gradient"  # zero or non-finite gradient at every step: could not attack
    NO_MOVE = "no move"  # the input came back unchanged although there was a budget


class Trace(NamedTuple):
    """What an attack's search says of itself; NaN where it says nothing.

    Attributes:
        claimed: score of the image returned, as the search saw it.
        rise: by how much the highest cross-entropy met exceeds the first.
        late: share of that rise that came in the last quarter of the search.
    """

    claimed: float = math.nan
    rise: float = math.nan
    late: float = math.nan


class Certificate(NamedTuple):
    """What a target proves of its own answer; NaN where it proves nothing.

    Attributes:
        radius: L2 distance within which the answer cannot change, in units of the bounds.
        certified: whether the answer proved is right; of masks and labels, the share that is.
        abstained: whether nothing could be proved; of masks and labels, the share.
    """

    radius: float = math.nan
    certified: float = math.nan
    abstained: float = math.nan


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one sample under one trial of one perturbation.

    Attributes:
        sample: id of the model input.
        case: id of the patient or study, the unit of independence.
        site: hospital, scanner or other subgroup, empty if unknown.
        trial: number of the draw or fault, from 0.
        reference: class index (one entry), label vector (multi-label), or empty (dense).
        decision: the same for what the model decided; empty where non-finite or dense.
        probabilities: per class, summing to 1 (exclusive) or each in [0, 1]; empty for dense tasks.
        score: quality of this decision in [0, 1]: 1 or 0 for classification, share of right labels
            for multi-label, mean Dice for dense. 0 where the output is non-finite.
        last_score: score at the attack's last iterate (`score` is the best's); else as `score`.
        finite: whether every logit is finite.
        identical: whether the logits equal the golden ones bit for bit.
        verdict: masked, sdc or due against the golden output.
        linf: largest absolute change of the input, in units of the bounds.
        l2: Euclidean norm of the change of the input, in units of the bounds.
        l0: how many input values have changed, each channel for itself; NaN where not counted.
        status: whether the disturbance could act.
        regions: one per foreground class of a dense task, in the order of the classes; else empty.
        prompt: what was asked, for prompted tasks; else empty.
        pixels: decisions of a dense task, one per pixel (per plane where planes do not exclude each
            other); 0 elsewhere.
        wrong_pixels: those that differ from the reference; all of them where non-finite.
        changed_pixels: those that differ from the golden output's; all of them where non-finite.
        claimed: score that the attack's search claims for the image; NaN where it claims none.
        rise: see `Trace`.
        late: see `Trace`.
        radius: see `Certificate`; of clean cells only.
        certified: see `Certificate`.
        abstained: see `Certificate`.
    """

    sample: str
    case: str
    site: str
    trial: int
    reference: tuple[int, ...]
    decision: tuple[int, ...]
    probabilities: tuple[float, ...]
    score: float
    last_score: float
    finite: bool
    identical: bool
    verdict: Verdict
    linf: float
    l2: float
    status: Status
    regions: tuple[Region, ...] = ()
    prompt: str = ""
    pixels: int = 0
    wrong_pixels: int = 0
    changed_pixels: int = 0
    l0: float = math.nan
    claimed: float = math.nan
    rise: float = math.nan
    late: float = math.nan
    radius: float = math.nan
    certified: float = math.nan
    abstained: float = math.nan
