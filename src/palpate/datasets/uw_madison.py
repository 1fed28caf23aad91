"""UW-Madison GI tract: MRI slices with three organs that may overlap, in the layout of Kaggle.

`train.csv` has id, class, segmentation (pairs of start and length, pixels counted from 1 along the
rows); `train/case7/case7_day0/scans/slice_0001_266_266_1.50_1.50.png` are 16-bit images.

Lee et al., "Dataset for gastrointestinal tract segmentation on serial MRIs for abdominal tumor
radiotherapy", Data in Brief 57, 111159 (2024). The choices are those of the U-Net study (Wang and
Xu, arXiv:2401.11224): every image is divided by its own maximum, is resized by area, and comes from
scans other than the two that are known to be faulty; ten folds by case.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from palpate.datasets._files import picture, side_lengths, stacked, table
from palpate.datasets._masks import Masks
from palpate.datasets._splits import shared_places
from palpate.datasets.base import Dataset, Samples
from palpate.errors import ConfigError, DataError
from palpate.types import Segmentation

ORGANS: Final = ("large_bowel", "small_bowel", "stomach")
FAULTY: Final = ("case7_day0", "case81_day30")
_FOLDS_ON: Final = {"test": 0, "val": 1}


class _Slice(NamedTuple):
    name: str
    path: Path
    runs: tuple[str, ...]  # per organ

    @property
    def case(self) -> str:
        return self.name.partition("_")[0]


@final
@dataclass(frozen=True)
class UwMadison(Dataset):
    """One split by case: fold `fold` is the test, the next one the validation, the rest is trained.

    The study had no third part: it chose the epoch and measured the attack on fold 0.

    Attributes:
        path: folder with train.csv and train/; if it is not there, its name is looked for in
            PALPATE_DATA.
        split: "train", "val" or "test".
        folds: number of groups of cases, of about as many slices each.
        fold: which one is the test, from 0.
        organs_only: only slices with an organ, as the study evaluated.
        size: resize to this square, by area for images and by the nearest pixel for masks; None to
            demand equal sizes.
        channels: 3 copies the grey image for networks that take colour.
    """

    path: Path = Path("uw_madison")
    split: Literal["train", "val", "test"] = "test"
    folds: int = 10
    fold: int = 0
    organs_only: bool = False
    size: int | None = 224
    channels: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        if not 0 <= self.fold < self.folds or self.folds < 3:
            raise ConfigError(
                f"uw_madison: expected 3 folds or more and a fold from 0, got fold {self.fold} of"
                f" {self.folds}"
            )

    @override
    def _read(self) -> Samples:
        places = [self.path, *shared_places(self.path.name)[:1]]
        folder = next((p for p in places if (p / "train.csv").is_file()), None)
        if folder is None:
            raise DataError(
                f"uw_madison: expected train.csv in {self.path}, or in {self.path.name} where"
                " PALPATE_DATA points, got none; the set is the Kaggle competition"
                " uw-madison-gi-tract-image-segmentation"
            )
        slices = self._chosen(_listed(folder))
        if not slices:
            raise DataError(f"uw_madison: no slices in split {self.split!r} of {folder}")
        return Samples(
            read=lambda indices: self._images([slices[i] for i in indices]),
            references=Masks(
                lambda indices: self._masks([slices[i] for i in indices]), len(slices)
            ),
            ids=tuple(s.name for s in slices),
            cases=tuple(s.case for s in slices),
            sites=("",) * len(slices),
            task=Segmentation(ORGANS, exclusive=False),
            label=f"UW-Madison {self.split}",
            licence="CC BY-NC-SA 4.0",
            attribution="Lee SL, Yadav P, Li Y, et al., Data in Brief 57, 111159 (2024)",
        )

    def _chosen(self, slices: list[_Slice]) -> list[_Slice]:
        folds = folds_of([s.case for s in slices], self.folds)
        held = {name: (self.fold + step) % self.folds for name, step in _FOLDS_ON.items()}
        chosen = [
            s
            for s, fold in zip(slices, folds, strict=True)
            if (fold == held[self.split] if self.split in held else fold not in held.values())
        ]
        return [s for s in chosen if any(s.runs)] if self.organs_only else chosen

    def _images(self, slices: Sequence[_Slice]) -> NDArray[Any]:
        images: list[NDArray[Any]] = []
        for one in slices:
            values = picture(one.path).astype(np.float32)
            if values.ndim != 2:
                raise DataError(f"{one.path}: expected a grey image, got shape {values.shape}")
            if self.size is not None:
                shape, kind = (self.size, self.size), Image.Resampling.BOX
                values = np.asarray(Image.fromarray(values).resize(shape, kind))
            values = values / max(values.max(), np.float32(1.0))
            images.append(np.repeat(values[None], self.channels, axis=0))
        return stacked(images, [s.path for s in slices], what="uw_madison")

    def _masks(self, slices: Sequence[_Slice]) -> NDArray[Any]:
        found: list[NDArray[Any]] = []
        for one in slices:
            width, height = side_lengths(one.path)
            planes = [decoded(r, (height, width), where=one.name) for r in one.runs]
            if self.size is not None:
                shape, kind = (self.size, self.size), Image.Resampling.NEAREST
                planes = [np.asarray(Image.fromarray(p).resize(shape, kind)) for p in planes]
            found.append(np.stack(planes))
        return stacked(found, [s.path for s in slices], what="uw_madison")


def decoded(runs: str, shape: tuple[int, int], *, where: str) -> NDArray[np.uint8]:
    """Mask (height, width) of 0 and 1 from "start length start length ...", start from 1.

    Raises:
        DataError: not pairs of numbers, or pixels outside the image.
    """
    mask = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    try:
        pairs = np.array(runs.split(), dtype=np.int64).reshape(-1, 2)
    except ValueError:
        raise DataError(f"{where}: expected pairs of start and length, got {runs[:40]!r}") from None
    for start, length in pairs:
        if start < 1 or length < 1 or start - 1 + length > len(mask):
            raise DataError(
                f"{where}: expected runs within {shape[1]} x {shape[0]} pixels, got start {start}"
                f" and length {length}"
            )
        mask[start - 1 : start - 1 + length] = 1
    return mask.reshape(shape)


def folds_of(cases: Sequence[str], folds: int) -> list[int]:
    """Fold of each slice: the largest case first, always into the fold with the fewest slices.

    Equal to scikit-learn's GroupKFold, whatever the order of the slices.

    Raises:
        DataError: fewer cases than folds.
    """
    names, place, sizes = np.unique(cases, return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise DataError(f"uw_madison: expected {folds} cases or more, got {len(names)}")
    filled, of_case = np.zeros(folds), np.zeros(len(names), dtype=np.intp)
    for case in np.argsort(sizes, kind="stable")[::-1]:
        of_case[case] = np.argmin(filled)
        filled[of_case[case]] += sizes[case]
    return of_case[place].tolist()


def _listed(folder: Path) -> list[_Slice]:
    """Every slice of train.csv with its image, without the faulty scans, in the file's order."""
    rows, _ = table(folder / "train.csv", ("id", "class", "segmentation"))
    files = {
        f"{p.parent.parent.name}_{'_'.join(p.name.split('_')[:2])}": p
        for p in folder.glob("train/*/*/scans/slice_*.png")
    }
    runs: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["class"] not in ORGANS:
            raise DataError(
                f"{folder / 'train.csv'}: expected classes {', '.join(ORGANS)}, got"
                f" {row['class']!r} for {row['id']}"
            )
        runs[row["id"]][row["class"]] = row["segmentation"]
    kept = [name for name in runs if name.rpartition("_slice_")[0] not in FAULTY]
    for name in kept:
        if name not in files:
            raise DataError(f"{folder / 'train.csv'}: no image of {name} under {folder / 'train'}")
    return [_Slice(n, files[n], tuple(runs[n].get(organ, "") for organ in ORGANS)) for n in kept]
