"""Images with masks, listed in split.csv: PNG, JPEG, TIFF, or NIfTI volumes slice by slice.

The folder holds images, masks and

- `split.csv`: one row per image with `id`, `image`, `mask` (paths from the folder), `split`, and
  `case` or `group` (patient, or cluster of near-duplicates), and any subgroup column;
- `dataset.json`: `mask_values` (number -> class, background first), `licence`, `attribution`, all
  optional where the parameters say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from palpate.datasets import _volume
from palpate.datasets._files import (
    SCALES,
    check_size,
    check_splits,
    facts,
    numbered,
    picture,
    side_lengths,
    stacked,
    table,
)
from palpate.datasets._masks import Masks
from palpate.datasets._splits import shared_places
from palpate.datasets.base import Dataset, Samples
from palpate.errors import DataError
from palpate.types import Segmentation

_CASES: Final = ("case", "group")
_WANTED: Final = ("id", "image", "mask", "split")
_NO_CASES: Final = ("no patients or groups named: every image is counted as a case of its own",)
_SCALED: Final = ("NIfTI volumes: each is scaled to [0, 1] by its own smallest and largest value",)


class _Sample(NamedTuple):
    name: str
    image: Path
    mask: Path
    case: str
    site: str
    number: int  # slice of a volume, 0 for pictures


@final
@dataclass(frozen=True)
class SegmentationFolder(Dataset):
    """One split of a folder; if it is not at `path`, its name is looked for in PALPATE_DATA.

    8-bit images stay 8-bit; 16-bit ones and volumes become floats in [0, 1]. Masks hold one number
    per pixel and are resized by the nearest pixel.

    Attributes:
        path: folder.
        split: rows of split.csv to keep; empty for all.
        classes: names, background first; those of dataset.json by default.
        values: number of each class in the masks; those of dataset.json by default, else 0, 1, ...
        exclusive: False for one sigmoid plane per foreground class.
        size: resize to this square; None to demand equal sizes.
        case: column of split.csv that names the patient; empty for `case` or `group`.
        site: column of split.csv that names the subgroup; empty for none.
    """

    path: Path = Path()
    split: str = "test"
    classes: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    exclusive: bool = True
    size: int | None = None
    case: str = ""
    site: str = ""

    def __post_init__(self) -> None:
        check_size(self.size, "segmentation_folder")

    @override
    def _read(self) -> Samples:
        folder = self._find()
        known = facts(folder / "dataset.json")
        where = f"{folder / 'dataset.json'}: mask_values"
        classes, values = self._classes(numbered(known.get("mask_values") or {}, where))
        samples, warnings = self._listed(folder)
        pick = _Reader(samples, values, self.size, exclusive=self.exclusive)
        return Samples(
            read=pick.images,
            references=Masks(pick.masks, len(samples)),
            ids=tuple(s.name for s in samples),
            cases=tuple(s.case for s in samples),
            sites=tuple(s.site for s in samples),
            task=Segmentation(classes if self.exclusive else classes[1:], self.exclusive),
            label=f"{folder.name} {self.split}".strip(),
            licence=str(known.get("licence", "")),
            attribution=str(known.get("attribution", "")),
            warnings=warnings,
        )

    def _find(self) -> Path:
        places = [self.path, *(p for p in shared_places(self.path.name)[:1] if self.path.name)]
        found = next((place for place in places if (place / "split.csv").is_file()), None)
        if found is None:
            raise DataError(
                f"segmentation_folder: expected split.csv in {self.path}, or in a folder of that"
                " name where PALPATE_DATA points, got none"
            )
        return found

    def _classes(self, listed: dict[int, str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        classes = self.classes or tuple(listed.values())
        values = self.values or tuple(listed) or tuple(range(len(classes)))
        if len(classes) < 2 or len(classes) != len(values) or len(set(values)) != len(values):
            raise DataError(
                "segmentation_folder: expected two or more classes, background first, each with a"
                f" mask value of its own, got classes {classes} and values {values}; give them, or"
                " mask_values in dataset.json"
            )
        return classes, values

    def _listed(self, folder: Path) -> tuple[list[_Sample], tuple[str, ...]]:
        where = folder / "split.csv"
        wanted = (*_WANTED, *filter(None, (self.case, self.site)))
        rows, columns = table(where, wanted)
        case = self.case or next((c for c in _CASES if c in columns), "id")
        check_splits(((row[case], row["split"]) for row in rows), where)
        kept = [row for row in rows if not self.split or row["split"] == self.split]
        if not kept:
            known = ", ".join(sorted({row["split"] for row in rows})) or "none"
            raise DataError(
                f"{where}: expected rows of split {self.split!r}, got none; it has {known}"
            )
        samples = [s for row in kept for s in self._samples(folder, row, case)]
        warnings = _NO_CASES if case == "id" else ()
        scaled = _SCALED if any(_volume.is_volume(s.image) for s in samples) else ()
        return samples, warnings + scaled

    def _samples(self, folder: Path, row: dict[str, str], case: str) -> list[_Sample]:
        image, mask = folder / row["image"], folder / row["mask"]
        for path in (image, mask):
            if not path.is_file():
                raise DataError(f"{folder / 'split.csv'}: no such file {path}")
        site = row[self.site] if self.site else ""
        one = _Sample(row["id"], image, mask, row[case], site, 0)
        if not _volume.is_volume(image):
            return [one]
        count = _volume.depth(image, mask)
        return [one._replace(name=f"{one.name}/{i:03d}", number=i) for i in range(count)]


class _Reader:
    """Reads the images and masks of a list of samples."""

    def __init__(
        self,
        samples: list[_Sample],
        values: tuple[int, ...],
        size: int | None,
        *,
        exclusive: bool,
    ) -> None:
        self._samples, self._size, self._exclusive = samples, size, exclusive
        self._values = np.array(values)
        self._order = np.argsort(self._values)
        self._volume = _volume.reader()

    def images(self, indices: Sequence[int]) -> NDArray[Any]:
        chosen = [self._samples[i] for i in indices]
        arrays = [self._image(sample) for sample in chosen]
        if any(array.dtype != np.uint8 for array in arrays):
            arrays = [a if a.dtype != np.uint8 else a.astype(np.float32) / 255 for a in arrays]
        return stacked(arrays, [s.image for s in chosen], what="segmentation_folder")

    def masks(self, indices: Sequence[int]) -> NDArray[Any]:
        chosen = [self._samples[i] for i in indices]
        found = [self._mask(sample) for sample in chosen]
        return stacked(found, [s.mask for s in chosen], what="segmentation_folder")

    def _image(self, sample: _Sample) -> NDArray[Any]:
        if _volume.is_volume(sample.image):
            return self._slice(sample, mask=False)[None]
        array = picture(sample.image, size=self._size)
        scale = SCALES.get(array.dtype)
        if scale is None:
            raise DataError(f"{sample.image}: expected 8 or 16 bits, got {array.dtype}")
        if array.dtype != np.uint8:
            array = array.astype(np.float32) / np.float32(scale)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _mask(self, sample: _Sample) -> NDArray[np.uint8]:
        numbers = (
            self._slice(sample, mask=True)
            if _volume.is_volume(sample.mask)
            else self._drawn(sample)
        )
        place = np.searchsorted(self._values, numbers, sorter=self._order)
        labels = self._order[place.clip(max=len(self._order) - 1)]
        unknown = numbers[self._values[labels] != numbers]
        if unknown.size:
            expected = ", ".join(str(v) for v in sorted(self._values.tolist()))
            raise DataError(
                f"{sample.mask}: expected mask values {expected}, got {unknown.flat[0]:g}"
            )
        if self._exclusive:
            return labels.astype(np.uint8)
        return np.stack([labels == k for k in range(1, len(self._values))]).astype(np.uint8)

    def _drawn(self, sample: _Sample) -> NDArray[Any]:
        image, mask = side_lengths(sample.image), side_lengths(sample.mask)
        if image != mask:
            raise DataError(
                f"{sample.mask}: expected a mask of its image's size {image[0]} x {image[1]}, got"
                f" {mask[0]} x {mask[1]}"
            )
        numbers = picture(sample.mask, size=self._size, resampling=Image.Resampling.NEAREST)
        if numbers.ndim != 2:
            raise DataError(f"{sample.mask}: expected one number per pixel, got a colour image")
        return numbers

    def _slice(self, sample: _Sample, *, mask: bool) -> NDArray[np.float32]:
        path = sample.mask if mask else sample.image
        values = self._volume(path, sample.number, not mask)
        return _volume.resized(values, self._size, nearest=mask)
