"""MedMNIST v2: the official .npz files, twelve 2-D sets at 28, 64, 128 and 224 pixels.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10, 41 (2023). Facts about the sets: data/medmnist.json.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import orjson
from numpy.typing import NDArray
from typing_extensions import override

from palpate.datasets._splits import find, shared_places, split_arrays
from palpate.datasets.base import Dataset, Samples
from palpate.errors import DataError, UnknownComponent, nearest
from palpate.types import Classification, MultiLabel

_ATTRIBUTION = (
    "MedMNIST v2: Yang J, Shi R, Wei D, et al., Scientific Data 10, 41 (2023);"
    " Zenodo record 10519652"
)
_BREAST = "; images: Al-Dhabyani W, et al., Data in Brief 28, 104863 (2020)"


@final
@dataclass(frozen=True)
class Medmnist(Dataset):
    """One split of one MedMNIST set.

    Looked for in `root`, then in PALPATE_DATA, then among the bundled files (BreastMNIST 28), then
    where the medmnist package keeps its files; else downloaded through that package.

    Attributes:
        flag: set, such as "breastmnist".
        split: "train", "val" or "test".
        size: 28, 64, 128 or 224 pixels.
        root: folder that holds `<flag>.npz` or `<flag>_<size>.npz`.
    """

    flag: str = "breastmnist"
    split: Literal["train", "val", "test"] = "test"
    size: Literal[28, 64, 128, 224] = 28
    root: Path | None = None

    @override
    def _read(self) -> Samples:
        facts = self._facts()
        path = self._find() or self._download()
        images, labels = split_arrays(path, self.split)
        task, references = _task(facts, labels)
        ids = tuple(f"{self.flag}/{self.split}/{i:05d}" for i in range(len(images)))
        return Samples(
            read=lambda indices: images[list(indices)],
            references=references,
            ids=ids,
            cases=ids,
            sites=("",) * len(ids),
            task=task,
            label=f"{self.flag} {self.size} {self.split}",
            licence=facts["licence"],
            attribution=_ATTRIBUTION + (_BREAST if self.flag == "breastmnist" else ""),
            warnings=(*self._check_md5(path, facts), *_no_patients()),
        )

    def _facts(self) -> dict[str, Any]:
        sets = orjson.loads(_bundled("medmnist.json").read_bytes())["sets"]
        if self.flag not in sets:
            raise UnknownComponent(
                f"no MedMNIST set named {self.flag!r}; {nearest(self.flag, sets)}"
            )
        return sets[self.flag]

    @property
    def _file(self) -> str:
        return f"{self.flag}.npz" if self.size == 28 else f"{self.flag}_{self.size}.npz"

    def _find(self) -> Path | None:
        if self.root is not None:
            return find(self._file, [self.root])
        return find(
            self._file, [*shared_places(self.flag), _bundled("."), Path.home() / ".medmnist"]
        )

    def _download(self) -> Path:
        root = self.root or Path.home() / ".medmnist"
        try:
            import medmnist

            root.mkdir(parents=True, exist_ok=True)
            maker = getattr(medmnist, str(medmnist.INFO[self.flag]["python_class"]))
            maker(split=self.split, download=True, root=str(root), size=self.size)
        except Exception as error:  # noqa: BLE001 - any failure of the download has one remedy
            raise DataError(
                f"expected {self._file} in {root}, got no such file, and the download failed"
                f" ({type(error).__name__}); place the official file there"
                " (MedMNIST v2, Zenodo record 10519652) or give its folder as root"
            ) from None
        return root / self._file

    def _check_md5(self, path: Path, facts: dict[str, Any]) -> tuple[str, ...]:
        expected = facts["md5"][str(self.size)]
        with path.open("rb") as file:
            got = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if got == expected:
            return ()
        return (f"{path.name} is not the official file: expected MD5 {expected}, got {got}",)


def _task(
    facts: dict[str, Any], labels: NDArray[Any]
) -> tuple[Classification | MultiLabel, NDArray[np.int64]]:
    classes = tuple(facts["classes"])
    if facts["task"].startswith("multi-label"):
        return MultiLabel(classes), labels.astype(np.int64)
    return Classification(classes, facts["positive"]), labels.reshape(-1).astype(np.int64)


def _no_patients() -> tuple[str, ...]:
    return ("MedMNIST names no patients: every image is counted as a case of its own",)


def _bundled(name: str) -> Path:
    return Path(str(resources.files("palpate") / "data" / name))
