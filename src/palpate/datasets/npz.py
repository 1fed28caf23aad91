"""An .npz file in MedMNIST's layout, with class names, cases and subgroups in files beside it.

`{train,val,test}_images` are uint8 (n, side, side) or (n, side, side, 3), `{train,val,test}_labels`
are class numbers (n,) or (n, 1), or 0/1 vectors (n, classes). Beside the file may lie

- `dataset.json`: `classes` (a list, or number -> name), `licence`, `attribution`, all optional;
- `split.csv`: one row per image with `split`, `index`, and any of `label` (name of the class, which
  is then checked), `group` (patient or cluster of near-duplicates), and subgroups such as `sex`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.datasets._files import facts, numbered, table
from palpate.datasets._splits import find, shared_places, split_arrays
from palpate.datasets.base import Dataset, Samples
from palpate.errors import DataError, UnknownComponent, nearest
from palpate.types import Classification, MultiLabel

_GROUP = "group"
_NO_GROUPS = ("no patients or groups named: every image is counted as a case of its own",)


@final
@dataclass(frozen=True)
class Npz(Dataset):
    """One split of a file; if it is not at `path`, its name is looked for in PALPATE_DATA.

    There as `<name>/<name>.npz`, then as `<name>.npz`.

    Attributes:
        path: .npz file.
        split: "train", "val" or "test".
        classes: names in the order of the labels; those of dataset.json by default.
        positive: the class that sensitivity speaks of; empty for the macro average.
        case: column of split.csv that names the patient; empty for `group` where there is one.
        site: column of split.csv that names the subgroup; empty for none.
    """

    path: Path = Path()
    split: Literal["train", "val", "test"] = "test"
    classes: tuple[str, ...] = ()
    positive: str = ""
    case: str = ""
    site: str = ""

    @override
    def _read(self) -> Samples:
        path = self._find()
        images, labels = split_arrays(path, self.split)
        known = facts(path.with_name("dataset.json"))
        names = self.classes or _classes(known.get("classes", ()), path.with_name("dataset.json"))
        task, references = self._task(names, labels)
        ids = tuple(f"{path.stem}/{self.split}/{i:05d}" for i in range(len(images)))
        rows = self._rows(path.with_name("split.csv"), count=len(images))
        if isinstance(task, Classification):
            _check_labels(rows, references, task.classes, ids)
        groups = self.case or (_GROUP if rows and _GROUP in rows[0] else "")
        return Samples(
            read=lambda indices: images[list(indices)],
            references=references,
            ids=ids,
            cases=tuple(row[groups] for row in rows) if groups else ids,
            sites=tuple(row[self.site] for row in rows) if self.site else ("",) * len(ids),
            task=task,
            label=f"{path.stem} {self.split}",
            licence=str(known.get("licence", "")),
            attribution=str(known.get("attribution", "")),
            warnings=() if groups else _NO_GROUPS,
        )

    def _find(self) -> Path:
        if self.path.is_file():
            return self.path
        found = find(self.path.name, shared_places(self.path.stem))
        if found is None:
            raise DataError(
                f"npz: expected a file at {self.path}, or {self.path.name} in the folder that"
                " PALPATE_DATA names, got none"
            )
        return found

    def _task(
        self, classes: tuple[str, ...], labels: NDArray[Any]
    ) -> tuple[Classification | MultiLabel, NDArray[np.int64]]:
        if not classes:
            raise DataError(
                "npz: expected class names, got none; give classes, or dataset.json beside the file"
            )
        if self.positive and self.positive not in classes:
            raise UnknownComponent(
                f"npz: no class {self.positive!r}; {nearest(self.positive, classes)}"
            )
        if labels.ndim == 2 and labels.shape[1] > 1:
            return MultiLabel(classes), labels.astype(np.int64)
        positive = classes.index(self.positive) if self.positive else None
        return Classification(classes, positive), labels.reshape(-1).astype(np.int64)

    def _rows(self, path: Path, *, count: int) -> list[dict[str, str]]:
        """The rows of split.csv for this split, by index; none if there is no such file."""
        if not path.is_file():
            rows: list[dict[str, str]] = []
            columns: list[str] = []
        else:
            rows, columns = table(path, {"split", "index"})
            rows = [row for row in rows if row["split"] == self.split]
            if [row["index"] for row in rows] != [str(i) for i in range(count)]:
                raise DataError(
                    f"{path}: expected rows 0 to {count - 1} of {self.split} in order,"
                    f" got {len(rows)} rows"
                )
        for column in filter(None, (self.case, self.site)):
            if column not in columns:
                known = ", ".join(columns) or "no such file"
                raise DataError(f"{path}: expected a column {column!r}, got {known}")
        return rows


def _classes(given: Any, where: Path) -> tuple[str, ...]:
    """Names in order, from a list or from {"0": name, ...}."""
    if isinstance(given, list | tuple):
        return tuple(str(name) for name in given)  # pyright: ignore
    return tuple(numbered(given, f"{where}: classes").values())


def _check_labels(
    rows: list[dict[str, str]],
    references: NDArray[np.int64],
    classes: tuple[str, ...],
    ids: tuple[str, ...],
) -> None:
    """The names in split.csv, where it has any, are those of the labels."""
    for row, reference, name in zip(rows, references.tolist(), ids, strict=bool(rows)):
        listed = row.get("label")
        if listed in classes and classes.index(listed) != reference:
            raise DataError(
                f"split.csv: expected label {listed!r} for {name}, got class {reference} in the"
                " .npz file"
            )
