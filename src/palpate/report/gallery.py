"""Worst cases as lossless pictures: clean, perturbed, and their difference with its stated gain."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palpate.metrics.base import TaskInfo
from palpate.record import CellRecord, Columns, Record
from palpate.report import words
from palpate.statistics.cells import Cells
from palpate.statistics.paired import label

_LIMIT = 16  # cards on the page
_PIXELS = 512  # longest side of an embedded picture
# blue, orange and green that colour-blind readers tell apart (Okabe and Ito 2008)
_RIGHT, _EXTRA, _MISSED = (0, 158, 115), (230, 120, 0), (0, 114, 250)
_GAINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Picture:
    """One image of a card.

    Attributes:
        source: data URI of a PNG.
        alt: text alternative.
        caption: below it.
    """

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Card:
    """One worst case.

    Attributes:
        title: model and disturbance.
        sample: id of the input.
        case: id of the patient.
        reference: what it really is.
        before: what the model said of the clean image.
        after: what it said of the perturbed one.
        pictures: clean, perturbed, difference.
    """

    title: str
    sample: str
    case: str
    reference: str
    before: str
    after: str
    pictures: tuple[Picture, ...]


def gallery(record: Record, *, limit: int = _LIMIT) -> list[Card]:
    """The worst case of each model and disturbance, from the smallest dose that has one.

    Args:
        record: the run.
        limit: cards at most.
    """
    cells = Cells(record)
    chosen: dict[tuple[str, str, str], CellRecord] = {}
    for cell in cells.finished("attacks", "corruptions", "occlusions"):
        key = (label(cell), cell.perturbation, str(cell.setting.get("norm", "")))
        best = chosen.get(key)
        if record.images(cell) and (best is None or _dose(cell) < _dose(best)):
            chosen[key] = cell
    return [_card(cells, cell) for cell in list(chosen.values())[:limit]]


def data_uri(image: NDArray[np.floating[Any]], low: float, high: float) -> str:
    """PNG of an image (channel, *spatial) as a data URI, 256 levels between low and high.

    One channel is grey, three are colour, other counts are averaged; of a volume the middle slice
    is shown. Pictures longer than 512 pixels are thinned by whole steps.
    """
    plane = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low, posinf=high, neginf=low)
    while plane.ndim > 3:
        plane = plane[:, plane.shape[1] // 2]
    plane = plane if len(plane) in (1, 3) else plane.mean(axis=0, keepdims=True)
    step = max(1, -(-max(plane.shape[1:]) // _PIXELS))
    levels = np.clip((plane[:, ::step, ::step] - low) / ((high - low) or 1.0), 0, 1) * 255
    pixels = np.round(levels).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay_uri(
    image: NDArray[np.floating[Any]],
    masks: tuple[NDArray[Any], NDArray[Any]],
    *,
    exclusive: bool,
    bounds: tuple[float, float],
) -> str:
    """PNG of an image with right, extra and missed pixels of a mask in colour, as a data URI.

    Args:
        image: (channel, height, width).
        masks: reference and decision, labels (height, width) or planes (classes, height, width).
        exclusive: whether the masks are labels, of which 0 is background.
        bounds: shown as black and white.
    """
    grey = np.nan_to_num(image.astype(np.float64), nan=bounds[0]).mean(axis=0)
    levels = np.clip((grey - bounds[0]) / ((bounds[1] - bounds[0]) or 1.0), 0, 1)
    picture = np.repeat(levels[None], 3, axis=0)
    reference, decision = masks
    agree = reference == decision
    if not exclusive:  # a pixel counts as right where every plane agrees
        agree = agree.all(axis=0)
        reference, decision = reference.any(axis=0), decision.any(axis=0)
    inside, said = reference > 0, decision > 0
    for where, colour in (
        (inside & said & agree, _RIGHT),
        (said & ~(inside & agree), _EXTRA),
        (inside & ~said, _MISSED),
    ):
        for channel, value in zip(picture, colour, strict=True):
            channel[where] = 0.55 * channel[where] + 0.45 * value / 255
    return data_uri(picture, 0.0, 1.0)


def gain_of(difference: NDArray[np.floating[Any]], width: float) -> int:
    """Largest round factor that keeps the difference within half the range."""
    largest = float(np.nan_to_num(np.abs(difference)).max()) / width
    return max((g for g in _GAINS if g * largest <= 0.5), default=1)


def _card(cells: Cells, cell: CellRecord) -> Card:
    images, rows = cells.record.images(cell), cells.rows(cell)
    low, high = cells.record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    sample, trial = str(images["sample"][0]), int(images["trial"][0])
    clean, moved = images["clean"][0], images["perturbed"][0]
    own = int(np.flatnonzero((rows["sample"] == sample) & (rows["trial"] == trial))[0])
    before = cells.clean_of(cell)
    gain = gain_of(moved - clean, high - low)
    middle = (low + high) / 2
    shown = middle + gain * (moved.astype(np.float64) - clean)
    title = (
        f"{label(cell)} · {words.spaced(cell.perturbation)}, {words.setting_words(cell.setting)}"
    )
    said = "not known"
    if before is not None and (there := np.flatnonzero(before["sample"] == sample)).size:
        said = _answer(before, int(there[0]), cells.task)
    now = _answer(rows, own, cells.task)
    return Card(
        title=title,
        sample=sample,
        case=str(rows["case"][own]),
        reference=_reference(rows, own, cells.task),
        before=said,
        after=now,
        pictures=(
            *_overlays(cells, images, (said, now)),
            Picture(data_uri(clean, low, high), f"Clean image {sample}: {said}", "clean"),
            Picture(data_uri(moved, low, high), f"Perturbed image {sample}: {now}", "perturbed"),
            Picture(
                data_uri(shown, low, high),
                f"Change of image {sample}, enlarged {gain} times; mid-grey is no change",
                f"change × {gain}",
            ),
        ),
    )


def _overlays(
    cells: Cells, images: dict[str, NDArray[Any]], answers: tuple[str, str]
) -> Iterator[Picture]:
    if "reference_mask" not in images:
        return
    low, high = cells.record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    reference = images["reference_mask"][0]
    if reference.ndim > 3 or images["clean"][0].ndim != 3:
        return  # volumes: no plane of their own to show
    when = (("clean", "clean", answers[0]), ("perturbed", "perturbed", answers[1]))
    for name, pixels, said in when:
        masks = (reference, images[f"{name}_mask"][0])
        source = overlay_uri(
            images[pixels][0], masks, exclusive=reference.ndim == 2, bounds=(low, high)
        )
        alt = f"Mask on the {name} image: {said}; green right, orange extra, blue missed"
        yield Picture(source, alt, f"{name}: {said} (green right, orange extra, blue missed)")


def _answer(rows: Columns | Any, row: int, task: TaskInfo) -> str:
    if not rows["finite"][row]:
        return "no finite output"
    decision, chances = rows["decision"][row].tolist(), rows["probabilities"][row].tolist()
    if task.kind == "classification" and decision:
        chance = words.number(chances[decision[0]]) if decision[0] < len(chances) else "–"
        return f"{_class(task, decision[0])} ({chance})"
    if task.kind == "multi_label" and decision:
        return _labels(decision, task)
    return f"Dice {float(rows['score'][row]):.3f}"


def _reference(rows: Columns | Any, row: int, task: TaskInfo) -> str:
    reference = rows["reference"][row].tolist()
    if task.kind == "classification" and reference:
        return _class(task, reference[0])
    return _labels(reference, task) if task.kind == "multi_label" else "mask"


def _labels(marks: Sequence[int], task: TaskInfo) -> str:
    named = [_class(task, i) for i, mark in enumerate(marks) if mark == 1]
    return ", ".join(named) or "none of the labels"


def _class(task: TaskInfo, index: int) -> str:
    return task.classes[index] if 0 <= index < len(task.classes) else f"class {index}"


def _dose(cell: CellRecord) -> float:
    dose = words.dose_of(cell.setting)
    value = cell.setting.get(dose) if dose else None
    return float(value) if isinstance(value, int | float) else 0.0
