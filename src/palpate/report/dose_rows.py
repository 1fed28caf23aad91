"""One sample at every dose of a disturbance, side by side: clean, each dose, and the change.

The pictures are small and lossy, so that the page stays small; the record has them exactly.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from palpate.outcome import FOLLOWED
from palpate.record import CellRecord, Columns, Record
from palpate.registry import canonical
from palpate.report import words
from palpate.report.gallery import answer_words
from palpate.report.pictures import Picture, gain_of
from palpate.statistics.cells import Cells
from palpate.statistics.paired import label

BUDGET: Final = 180_000
"""Characters of all pictures together."""

_SIDE = 96  # longest side of a picture, pixels
_DOSES = 6  # pictures of one row beside the clean one and the change
_QUALITY = 80  # of WebP, half the size of JPEG
# blue and orange that colour-blind readers tell apart (Okabe and Ito 2008)
_ANSWER, _REFERENCE = (230, 120, 0), (0, 114, 250)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class DoseRow:
    """One disturbance of one model.

    Attributes:
        title: both, and what else was set.
        sample: id of the input.
        pictures: clean, each dose, and the change at the smallest dose.
    """

    title: str
    sample: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class DoseRows:
    """What fits, and what does not.

    Attributes:
        rows: in the order of the audit.
        left_out: how many more the record could show.
        outlined: whether the pictures have outlines of masks.
    """

    rows: tuple[DoseRow, ...]
    left_out: int
    outlined: bool


@dataclass(frozen=True)
class _Rung:
    """One dose: its cell, and the arrays of the followed sample without the axis of the samples."""

    cell: CellRecord
    arrays: Arrays

    @property
    def sample(self) -> str:
        return str(self.arrays["sample"])


_Key = tuple[str, str, str]


def dose_rows(record: Record, *, budget: int = BUDGET) -> DoseRows:
    """Every disturbance with two doses or more, as far as there is room.

    Every component gets its first row with a model before any gets a second, with other settings;
    among those, the families of a model take turns.

    Args:
        record: the run; cells of an older version follow no sample and give no row.
        budget: characters of all pictures together.
    """
    cells = Cells(record)
    ladders = _ladders(cells)
    seen: Counter[tuple[str, str]] = Counter()
    turns: list[tuple[int, int]] = []
    for (model, component, _), ladder in ladders.items():
        own, family = (model, component), (model, ladder[0].cell.family)
        turns.append((seen[own], seen[family]))
        seen.update((own, family))
    made: dict[int, DoseRow] = {}
    for number in sorted(range(len(turns)), key=lambda i: turns[i]):
        row = _row(cells, list(ladders.values())[number])
        cost = sum(len(picture.source) for picture in row.pictures)
        if cost <= budget:
            made[number] = row
            budget -= cost
    rows = tuple(made[number] for number in sorted(made))
    return DoseRows(rows, len(ladders) - len(rows), "segmentation" in cells.task.kind)


def _ladders(cells: Cells) -> dict[_Key, list[_Rung]]:
    """Cells that differ in the dose only and follow the same sample, by rising dose."""
    found: dict[_Key, dict[float, _Rung]] = {}
    for cell in cells.finished("attacks", "corruptions", "occlusions"):
        dose, arrays = words.dose_of(cell.setting), _followed(cells.record, cell)
        if dose is None or not arrays:
            continue
        rest = {name: value for name, value in cell.setting.items() if name != dose}
        key = (label(cell), cell.perturbation, canonical(rest))
        rungs = found.setdefault(key, {})
        rung = _Rung(cell, arrays)
        if all(other.sample == rung.sample for other in rungs.values()):
            rungs[float(cell.setting[dose])] = rung
    return {
        key: [rungs[dose] for dose in sorted(rungs)]
        for key, rungs in found.items()
        if len(rungs) > 1
    }


def _followed(record: Record, cell: CellRecord) -> Arrays:
    return {
        name.removeprefix(FOLLOWED): array[0]
        for name, array in record.images(cell).items()
        if name.startswith(FOLLOWED)
    }


def _row(cells: Cells, ladder: Sequence[_Rung]) -> DoseRow:
    first = ladder[0]
    ends = cells.record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    clean = cells.clean_of(first.cell)
    before = "not known" if clean is None else _answer(clean, first, cells)
    name = f"Sample {first.sample}"
    pictures = [_picture(first.arrays, "clean", ends, (f"clean: {before}", name))]
    for number in np.linspace(0, len(ladder) - 1, min(len(ladder), _DOSES)).round().astype(int):
        rung = ladder[number]
        caption = f"{_dose(rung.cell)}: {_answer(cells.rows(rung.cell), rung, cells)}"
        pictures.append(_picture(rung.arrays, "perturbed", ends, (caption, name)))
    pictures.append(_change(first, ends))
    _, _, rest = words.setting_words(first.cell.setting).partition(", ")  # the dose comes first
    title = f"{label(first.cell)} · {words.spaced(first.cell.perturbation)}"
    return DoseRow(f"{title}, {rest}" if rest else title, first.sample, tuple(pictures))


def _answer(rows: Columns | Any, rung: _Rung, cells: Cells) -> str:
    """What the model said of the sample in the trial that is shown; the clean cell has one only."""
    same = rows["sample"] == rung.sample
    own = np.flatnonzero(same & (rows["trial"] == int(rung.arrays["trial"])))
    own = own if own.size else np.flatnonzero(same)
    return answer_words(rows, int(own[0]), cells.task) if own.size else "not known"


def _dose(cell: CellRecord) -> str:
    dose = words.dose_of(cell.setting)
    return f"{words.dose_title(dose)} {words.dose_text(dose, cell.setting[dose or ''])}"


def _picture(
    arrays: Arrays, which: str, ends: tuple[float, float], said: tuple[str, str]
) -> Picture:
    """The clean or the perturbed image, with outlines of reference and answer for masks."""
    caption, name = said
    pixels = _levels(arrays[which], ends, shrink=Image.Resampling.BOX)
    outlined = "reference_mask" in arrays
    if outlined:
        truth = (
            "moved_mask" if which == "perturbed" and "moved_mask" in arrays else "reference_mask"
        )
        for mask, colour in ((truth, _REFERENCE), (f"{which}_mask", _ANSWER)):
            pixels[_outline(arrays[mask], arrays[which].ndim, pixels.shape[:2])] = colour
    more = "; answer outlined in orange, reference in blue" if outlined else ""
    return Picture(_uri(pixels), f"{name}, {caption}{more}", caption)


def _change(rung: _Rung, ends: tuple[float, float]) -> Picture:
    """What the disturbance added, enlarged; thinned, since an average would wipe it out."""
    low, high = ends
    moved = rung.arrays["perturbed"].astype(np.float64) - rung.arrays["clean"]
    gain = gain_of(moved, high - low)
    pixels = _levels((low + high) / 2 + gain * moved, ends, shrink=Image.Resampling.NEAREST)
    caption = f"change at {_dose(rung.cell)}, ×\u00a0{gain}"
    alt = f"Sample {rung.sample}, {caption}; mid-grey is no change"
    return Picture(_uri(pixels), alt, caption)


def _levels(
    image: NDArray[Any], ends: tuple[float, float], *, shrink: Image.Resampling
) -> NDArray[np.uint8]:
    """Colours (height, width, 3) of an image (channel, *spatial), made small where it is large."""
    low, high = ends
    plane = np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low)
    while plane.ndim > 3:
        plane = plane[:, plane.shape[1] // 2]
    plane = plane if len(plane) == 3 else np.repeat(plane.mean(axis=0, keepdims=True), 3, axis=0)
    levels = np.clip((plane - low) / ((high - low) or 1.0), 0, 1) * 255
    picture = Image.fromarray(np.moveaxis(np.round(levels).astype(np.uint8), 0, -1))
    share = min(1.0, _SIDE / max(picture.size))
    width, height = (max(1, round(side * share)) for side in picture.size)
    return np.array(picture.resize((width, height), shrink))


def _outline(mask: NDArray[Any], dimensions: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Border pixels (height, width) of all that is not background, seen from inside."""
    planes = mask if mask.ndim == dimensions else mask[None]  # else labels
    inside: NDArray[np.bool_] = np.asarray(planes.any(axis=0))
    while inside.ndim > 2:
        inside = inside[len(inside) // 2]
    width, height = shape[1], shape[0]
    small = np.array(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST))
    return small & np.logical_not(ndimage.binary_erosion(small))


def _uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
