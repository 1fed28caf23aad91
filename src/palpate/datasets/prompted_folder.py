"""Images, masks and questions: several folders of `segmentation_folder`'s layout, and prompt files.

A prompt file, `<folder name>.json`, holds `{"texts": {sample id: {kind: text}}, "paraphrases":
[text, ...]}`; `palpate prompts` writes one. The name of a folder is the subgroup of its samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from palpate.datasets._files import facts
from palpate.datasets._masks import Masks
from palpate.datasets.base import Dataset, Samples
from palpate.datasets.segmentation_folder import SegmentationFolder
from palpate.errors import DataError
from palpate.seeds import Seeds
from palpate.types import PromptedSegmentation


@final
@dataclass(frozen=True)
class PromptedFolder(Dataset):
    """One split of several folders, each image with the question of the chosen kind.

    Attributes:
        paths: folders; their names are looked for in PALPATE_DATA too.
        prompts: folder of the prompt files.
        prompt: kind of the question that is scored: "p0" to "p9", "c1", "c2", ... for paraphrases
            of the class, or "random" for one of p1 to p9, drawn for each sample by its id.
        kinds: wordings that attackers and training may choose from; empty for all.
        split: rows of split.csv to keep.
        size: resize to this square.
        limit: at most so many samples of each folder; None for all.
    """

    paths: tuple[Path, ...] = ()
    prompts: Path = Path("prompts")
    prompt: str = "p1"
    kinds: tuple[str, ...] = ()
    split: str = "test"
    size: int = 352
    limit: int | None = None

    @override
    def _read(self) -> Samples:
        if not self.paths:
            raise DataError("prompted_folder: expected one or more paths, got none")
        sets = [self._set(path) for path in self.paths]
        ids = [f"{path.name}/{i}" for path, s in zip(self.paths, sets, strict=True) for i in s.ids]
        texts = [
            words
            for path, samples in zip(self.paths, sets, strict=True)
            for words in _texts(self.prompts / f"{path.name}.json", samples.ids)
        ]
        joined = _Joined(sets)
        return Samples(
            read=joined.images,
            references=Masks(joined.masks, len(ids)),
            ids=tuple(ids),
            cases=tuple(
                f"{p.name}/{c}" for p, s in zip(self.paths, sets, strict=True) for c in s.cases
            ),
            sites=tuple(p.name for p, s in zip(self.paths, sets, strict=True) for _ in s.ids),
            task=PromptedSegmentation(),
            label=f"{' + '.join(path.name for path in self.paths)} {self.split}".strip(),
            licence="; ".join(dict.fromkeys(s.licence for s in sets if s.licence)),
            attribution="; ".join(dict.fromkeys(s.attribution for s in sets if s.attribution)),
            warnings=tuple(dict.fromkeys(w for s in sets for w in s.warnings)),
            prompts=tuple(map(self._chosen, texts, ids)),
            wordings=self._wordings(texts),
        )

    def _set(self, path: Path) -> Samples:
        found = SegmentationFolder(
            path=path, split=self.split, size=self.size, exclusive=False
        ).load(self.limit)
        if len(found.task.classes) != 1:
            raise DataError(
                f"prompted_folder: expected one class beside the background in {path}, got"
                f" {', '.join(found.task.classes)}"
            )
        return found

    def _chosen(self, words: Mapping[str, str], name: str) -> str:
        """The question that is scored."""
        kind = self.prompt
        if kind == "random":
            drawn = [k for k in words if k[0] == "p" and words[k]]
            kind = drawn[Seeds(cell="prompt").per_sample([name])[0] % len(drawn)]
        if kind not in words:
            raise DataError(
                f"prompted_folder: expected a prompt kind out of {', '.join(words)} or random, got"
                f" {kind!r}"
            )
        return words[kind]

    def _wordings(self, texts: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
        shared = [kind for kind in texts[0] if all(kind in words for words in texts)]
        for kind in self.kinds:
            if kind not in shared:
                raise DataError(
                    f"prompted_folder: expected kinds out of {', '.join(shared)}, got {kind!r}"
                )
        return {kind: tuple(words[kind] for words in texts) for kind in self.kinds or shared}


class _Joined:
    """Reads from several sets as from one; grey images become RGB."""

    def __init__(self, sets: Sequence[Samples]) -> None:
        self._sets = sets
        self._where = [(s, i) for s in sets for i in range(len(s))]

    def images(self, indices: Sequence[int]) -> NDArray[Any]:
        found = [_coloured(s.read([i])[0]) for s, i in (self._where[k] for k in indices)]
        if any(image.dtype != np.uint8 for image in found):
            found = [f / np.float32(255) if f.dtype == np.uint8 else f for f in found]
        return np.stack(found)

    def masks(self, indices: Sequence[int]) -> NDArray[Any]:
        return np.stack([s.references[[i]][0] for s, i in (self._where[k] for k in indices)])


def _coloured(image: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image


def _texts(path: Path, ids: Sequence[str]) -> list[dict[str, str]]:
    """Per sample, kind -> text."""
    if not path.is_file():
        raise DataError(f"prompted_folder: expected prompts in {path}, got no such file")
    content = facts(path)
    texts, extra = content.get("texts"), content.get("paraphrases", [])
    if not isinstance(texts, dict) or not isinstance(extra, list):
        raise DataError(f"{path}: expected 'texts' by sample id and a list 'paraphrases', got none")
    also = {f"c{number}": str(text) for number, text in enumerate(extra, start=1)}  # pyright: ignore
    found: list[dict[str, str]] = []
    for name in ids:
        words: Any = texts.get(name)  # pyright: ignore
        if not isinstance(words, dict) or not all(isinstance(t, str) for t in words.values()):  # pyright: ignore
            raise DataError(f"{path}: expected texts by kind for sample {name!r}, got {words!r}")
        found.append({**words, **also})  # pyright: ignore
    return found
