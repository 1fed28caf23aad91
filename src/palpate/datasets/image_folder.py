"""Image files in class folders, or listed in a CSV manifest with path, label, case and site."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.datasets._files import SCALES, check_size, check_splits, picture, stacked, table
from palpate.datasets.base import Dataset, Samples
from palpate.errors import DataError, UnknownComponent, nearest
from palpate.types import Bounds, Classification

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")


class _Row(NamedTuple):
    path: Path
    label: str
    case: str
    site: str
    split: str


@final
@dataclass(frozen=True)
class ImageFolder(Dataset):
    """Images of one size: 8- or 16-bit files become [0, 1]; .npy and float files stay as they are.

    Attributes:
        path: folder; its subfolders are the classes unless there is a manifest.
        manifest: CSV with the columns path and label, and if known case, site and split; paths
            start from `path`.
        split: keep only the manifest's rows of this split; empty for all.
        classes: names in the order of the model's outputs; by default the sorted names of the
            folders, or of all rows of the manifest, whatever their split.
        positive: the class that sensitivity speaks of; empty for the macro average.
        size: resize (bilinear) to this square; None to demand equal sizes.
        bounds: legal range of floating-point files.
    """

    path: Path = Path()
    manifest: Path | None = None
    split: str = ""
    classes: tuple[str, ...] = ()
    positive: str = ""
    size: int | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_size(self.size, "image_folder")
        if not self.bounds[0] < self.bounds[1]:
            raise DataError(f"image_folder: bounds: expected low < high, got {self.bounds}")
        if self.split and self.manifest is None:
            raise DataError(
                f"image_folder: split {self.split!r}: expected a manifest with a column 'split',"
                " got no manifest; or leave split out, and give the folder of one split as path"
            )

    @override
    def _read(self) -> Samples:
        if not self.path.is_dir():
            raise DataError(f"image_folder: expected a folder at {self.path}, got none")
        listed = self._folders() if self.manifest is None else self._listed(self.manifest)
        rows = self._kept(listed)
        classes = self.classes or tuple(sorted({row.label for row in listed}))
        unknown = [row for row in rows if row.label not in classes]
        if unknown:
            raise DataError(
                f"image_folder: expected labels out of {', '.join(classes)},"
                f" got {unknown[0].label!r} for {unknown[0].path}"
            )
        if self.positive and self.positive not in classes:
            raise UnknownComponent(
                f"image_folder: no class {self.positive!r}; {nearest(self.positive, classes)}"
            )
        positive = classes.index(self.positive) if self.positive else None
        return Samples(
            read=lambda indices: self._stack([rows[i].path for i in indices]),
            references=np.array([classes.index(row.label) for row in rows]),
            ids=tuple(row.path.relative_to(self.path).as_posix() for row in rows),
            cases=tuple(row.case for row in rows),
            sites=tuple(row.site for row in rows),
            task=Classification(classes, positive),
            bounds=Bounds(*self.bounds),
            label=self.path.name,
            warnings=() if self.manifest else ("no manifest: every image is a case of its own",),
        )

    def _folders(self) -> list[_Row]:
        files = sorted(p for p in self.path.glob("*/*") if p.suffix.lower() in _SUFFIXES)
        return [_Row(p, p.parent.name, p.relative_to(self.path).as_posix(), "", "") for p in files]

    def _listed(self, manifest: Path) -> list[_Row]:
        given, _ = table(manifest, ("path", "label", *(("split",) if self.split else ())))
        for r in given:
            if not r["label"] or not (self.path / r["path"]).is_relative_to(self.path):
                raise DataError(
                    f"{manifest}: expected a path from {self.path} and a label in every row, got"
                    f" path {r['path']!r} and label {r['label']!r}"
                )
        rows = [
            _Row(
                path=self.path / r["path"],
                label=r["label"],
                case=r.get("case") or r["path"],
                site=r.get("site") or "",
                split=r.get("split") or "",
            )
            for r in given
        ]
        check_splits(((row.case, row.split) for row in rows if row.split), manifest)
        return rows

    def _kept(self, listed: list[_Row]) -> list[_Row]:
        rows = [row for row in listed if not self.split or row.split == self.split]
        if listed and not rows:
            known = ", ".join(sorted({row.split for row in listed if row.split})) or "none"
            raise DataError(
                f"{self.manifest}: expected rows of split {self.split!r}, got none; it has {known}"
            )
        if not rows:
            raise DataError(f"image_folder: expected images in {self.path}, got an empty dataset")
        for row in rows:
            if not row.path.is_file():
                raise DataError(f"{self.manifest}: no such image {row.path}")
        return rows

    def _stack(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        return stacked([self._open(path) for path in paths], paths, what="image_folder")

    def _open(self, path: Path) -> NDArray[np.float32]:
        array = (
            self._numbers(path) if path.suffix.lower() == ".npy" else picture(path, size=self.size)
        )
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.shape[2] not in (1, 3):
            raise DataError(f"{path}: expected a grey or RGB image, got shape {array.shape}")
        scale = SCALES.get(array.dtype)
        low, high = self.bounds
        values = array.astype(np.float32)
        if scale is not None:
            values = values / np.float32(scale) * np.float32(high - low) + np.float32(low)
        return values.transpose(2, 0, 1)

    def _numbers(self, path: Path) -> NDArray[Any]:
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: cannot be read as an array: {error}") from None
        if self.size is not None and array.shape[:2] != (self.size, self.size):
            raise DataError(
                f"{path}: expected {self.size} x {self.size}, got {array.shape}; .npy files are not"
                " resized"
            )
        return array
