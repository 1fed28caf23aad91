"""The nine kinds of prompt of one image, worked out from its mask.

Poudel et al., "Exploring Transfer Learning in Medical Image Segmentation using Vision-Language
Models", arXiv 2308.07706 (MedVLSM), section 3.2: p1 the class; p2 to p5 add shape, colour, size and
number; p6 adds the place; p7 a general description; p8 is p5 and p9 is p6 with the description; p0
is empty. Everything but p0, p1 and p7 tells about the mask of that very image: fit to reproduce a
study, and to ask what a precise question is worth; a product is asked p1.

| code | meaning | from |
|---|---|---|
| shape | round, oval or irregular | isoperimetric quotient and axes of the mask |
| colour | nearest of a few names, or dark, grey, bright | mean pixel inside, against outside |
| size | small, medium, large: under 3 %, under 15 %, more | share of the image |
| number | one, two, many | connected parts of at least 0.05 % of the image |
| place | of a 3 x 3 grid | centre of mass |
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from palpate.datasets.base import Samples

KINDS: Final = tuple(f"p{i}" for i in range(10))
_SPECK: Final = 0.0005
_SIZES: Final = ((0.03, "small"), (0.15, "medium"), (1.01, "large"))
_ROWS: Final = ("top", "middle", "bottom")
_COLUMNS: Final = ("left", "centre", "right")
_COLOURS: Final = {
    "red": (0.65, 0.15, 0.15),
    "pink": (0.85, 0.55, 0.55),
    "brown": (0.45, 0.30, 0.20),
    "tan": (0.75, 0.60, 0.45),
    "yellow": (0.80, 0.70, 0.30),
    "black": (0.12, 0.10, 0.10),
    "white": (0.92, 0.92, 0.92),
}


def wordings(
    image: NDArray[Any], mask: NDArray[Any], *, name: str, description: str
) -> dict[str, str]:
    """The texts of one image.

    Args:
        image: (channel, height, width) in [0, 1].
        mask: (height, width), not 0 inside.
        name: of the class, such as "polyp".
        description: general, the same for every image of the set.

    Returns:
        Kind -> text. An image without the class gets p1 for p2 to p6: nothing is to be said of it.
    """
    inside = np.asarray(mask) != 0
    parts, count = _parts(inside)
    base = {"p0": "", "p1": name, "p7": description}
    if not count:
        words = dict.fromkeys(("p2", "p3", "p4", "p5", "p6"), name)
    else:
        shape, colour, size = _shape(parts), _colour(image, inside), _size(inside)
        number = ("one", "two")[count - 1] if count < 3 else "many"
        noun = name if count == 1 else f"{name}s"
        words = {
            "p2": f"{shape} {name}",
            "p3": f"{colour} {shape} {name}",
            "p4": f"{size} {colour} {shape} {name}",
            "p5": f"{number} {size} {colour} {shape} {noun}",
        }
        words["p6"] = f"{words['p5']} in the {_place(inside)} of the image"
    found = base | words
    found |= {"p8": f"{found['p5']}, {description}", "p9": f"{found['p6']}, {description}"}
    return {kind: found[kind] for kind in KINDS}


def prompt_file(
    samples: Samples, *, name: str, description: str, paraphrases: Sequence[str]
) -> dict[str, Any]:
    """Content of the prompt file of some samples with 0/1 planes of one class."""
    texts: dict[str, dict[str, str]] = {}
    for i, sample in enumerate(samples.ids):
        image, mask = samples.batch([i]).images[0].numpy(), samples.references[[i]][0, 0]
        texts[sample] = wordings(image, mask, name=name, description=description)
    note = "p2 to p6, p8 and p9 are worked out from the mask of the same image: they tell about it"
    return {"note": note, "texts": texts, "paraphrases": list(paraphrases)}


def _parts(inside: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The largest connected part, and how many there are beside specks."""
    labels: NDArray[Any]
    labels, count = ndimage.label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = int((sizes >= _SPECK * inside.size).sum())
    largest = labels == 1 + int(sizes.argmax()) if count else inside
    return largest, kept


def _shape(part: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(part)
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]).astype(float)) + np.eye(2) / 12)
    hull = float(np.pi * 4 * np.sqrt(np.prod(spread)))  # area of the ellipse of these moments
    if len(rows) < 0.9 * hull:
        return "irregular"
    return "round" if spread[0] > 0.6 * spread[1] else "oval"


def _colour(image: NDArray[Any], inside: NDArray[np.bool_]) -> str:
    mean = image[:, inside].mean(axis=1)
    if np.ptp(mean) < 0.02:  # a grey picture
        outside = image[:, ~inside].mean() if (~inside).any() else 0.5
        change = float(mean.mean() - outside)
        return "grey" if abs(change) < 0.05 else "bright" if change > 0 else "dark"
    return min(_COLOURS, key=lambda name: float(np.square(mean - _COLOURS[name]).sum()))


def _size(inside: NDArray[np.bool_]) -> str:
    share = float(inside.mean())
    return next(word for limit, word in _SIZES if share < limit)


def _place(inside: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(inside)
    row = _ROWS[int(rows.mean() * 3 / inside.shape[0])]
    column = _COLUMNS[int(columns.mean() * 3 / inside.shape[1])]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
