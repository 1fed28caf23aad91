"""Two masks of one class as plain numbers: what every metric of masks is made of.

Empty masks: both empty is right (surface agreement 1, no distance); one empty is as wrong as can
be (surface agreement 0, the distance is the diagonal of the image), so that a mask which an attack
emptied can never score well. Distances are in pixels of the model's input.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

TOLERANCE: Final = 2.0
"""Pixels that a surface may be off and still agree."""

DETECTED: Final = 0.1
"""Share of a lesion that has to be covered for it to count as found (Commowick et al. 2018)."""

Plane = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Region:
    """One class of one sample.

    Attributes:
        overlap: pixels in both masks.
        decided: pixels in the decided mask.
        expected: pixels in the reference mask.
        hd95: larger of the two 95th percentiles of the distances from one surface to the other,
            pixels; the image's diagonal if one mask is empty, NaN if both are.
        surface: share of both surfaces that lies within `TOLERANCE` of the other (normalised
            surface distance); 0 if one mask is empty, 1 if both are.
        lesions: connected parts of the reference mask, diagonals included.
        found: those of which at least `DETECTED` is covered.
    """

    overlap: int
    decided: int
    expected: int
    hd95: float
    surface: float
    lesions: int
    found: int


def compare(decided: Plane, expected: Plane) -> Region:
    """Measure one class.

    Args:
        decided: (*spatial) what the model drew.
        expected: (*spatial) the reference.
    """
    drawn, wanted = int(decided.sum()), int(expected.sum())
    overlap = int((decided & expected).sum())
    lesions, found = _lesions(decided, expected) if wanted else (0, 0)
    if drawn and wanted:
        hd95, surface = _surfaces(decided, expected)
    elif drawn or wanted:
        hd95, surface = diagonal(expected), 0.0
    else:
        hd95, surface = math.nan, 1.0
    return Region(overlap, drawn, wanted, hd95, surface, lesions, found)


def lost(expected: Plane) -> Region:
    """An output that was not finite: nothing was decided, and that is never right."""
    wanted = int(expected.sum())
    lesions = _lesions(np.zeros_like(expected), expected)[0] if wanted else 0
    return Region(0, 0, wanted, diagonal(expected), 0.0, lesions, 0)


def diagonal(plane: Plane) -> float:
    """Largest distance that two pixels can have."""
    return math.hypot(*(side - 1 for side in plane.shape))


def _surfaces(decided: Plane, expected: Plane) -> tuple[float, float]:
    first, second = _surface(decided), _surface(expected)
    there = KDTree(second).query(first)[0]
    back = KDTree(first).query(second)[0]
    hd95 = max(float(np.percentile(d, 95)) for d in (there, back))
    near = int((there <= TOLERANCE).sum() + (back <= TOLERANCE).sum())
    return hd95, near / (len(there) + len(back))


def _surface(mask: Plane) -> NDArray[np.intp]:
    """Places of the pixels of the mask that touch its outside; the image's border is outside."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _lesions(decided: Plane, expected: Plane) -> tuple[int, int]:
    labels, count = ndimage.label(expected, structure=np.ones((3,) * expected.ndim))  # pyright: ignore
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(labels[decided], minlength=count + 1)[1:]
    return int(count), int((covered >= DETECTED * sizes).sum())
