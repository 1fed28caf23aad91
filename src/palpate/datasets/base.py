"""Where samples come from: `Samples` are checked, ordered and repeatable; `Dataset` reads them."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from palpate import registry
from palpate.datasets._masks import Masks
from palpate.datasets._prompts import check_prompts
from palpate.errors import DataError
from palpate.types import (
    Batch,
    Bounds,
    Classification,
    MultiLabel,
    PromptedSegmentation,
    Segmentation,
    Task,
)

Read = Callable[[Sequence[int]], NDArray[Any]]


@dataclass(frozen=True)
class Batches:
    """All samples in order, some at a time; can be read again.

    Attributes:
        samples: what to read.
        size: samples per batch; the last one may have fewer.
    """

    samples: "Samples"
    size: int

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.samples)
        for start in range(0, count, self.size):
            yield self.samples.batch(range(start, min(start + self.size, count)))


@dataclass(frozen=True)
class Samples:
    """Images with references, in a fixed order.

    Attributes:
        read: indices -> (n, channel, *spatial), uint8 (scaled by 1/255 into the bounds) or
            floating within the bounds.
        references: class indices (n,), label vectors (n, classes), or masks: label maps
            (n, *spatial) or 0/1 planes (n, classes, *spatial), as an array or read when needed.
        ids: one name per image, unique.
        cases: patient or study per image.
        sites: subgroup per image, empty strings if unknown.
        task: what the references mean.
        bounds: smallest and largest legal pixel value.
        label: name in tables.
        licence: of the images.
        attribution: whom to name.
        warnings: what a reader of the results must know of the data.
        prompts: what is asked of each image in a prompted task, else None.
        wordings: kind of prompt -> one text per image, what else could be asked.
    """

    read: Read
    references: NDArray[Any] | Masks
    ids: tuple[str, ...]
    cases: tuple[str, ...]
    sites: tuple[str, ...]
    task: Task
    bounds: Bounds = field(default_factory=Bounds)
    label: str = "data"
    licence: str = ""
    attribution: str = ""
    warnings: tuple[str, ...] = ()
    prompts: tuple[str, ...] | None = None
    wordings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError(f"{self.label}: expected at least one sample, got an empty dataset")
        counts = {len(self.ids), len(self.cases), len(self.sites), len(self.references)}
        if len(counts) != 1:
            raise DataError(
                f"{self.label}: expected as many references, cases and sites as images,"
                f" got {len(self.ids)}, {len(self.references)}, {len(self.cases)},"
                f" {len(self.sites)}"
            )
        name, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise DataError(f"{self.label}: expected unique sample ids, got {name!r} {times} times")
        check_prompts(
            self.prompts, self.wordings, count=len(self.ids), task=self.task, where=self.label
        )
        self._check_references()

    @classmethod
    def of(
        cls,
        images: NDArray[Any],
        references: NDArray[Any],
        *,
        task: Task,
        bounds: Bounds | tuple[float, float] = (0.0, 1.0),
        ids: Sequence[str] | None = None,
        cases: Sequence[str] | None = None,
        label: str = "arrays",
    ) -> "Samples":
        """Wrap arrays in memory.

        Args:
            images: (n, channel, *spatial), uint8 or floating within the bounds.
            references: class indices (n,), label vectors (n, classes) or masks.
            task: what the references mean.
            bounds: legal range of floating images.
            ids: unique names or numbers; the position by default.
            cases: patients, likewise; each image its own by default.
            label: name in tables.

        Raises:
            DataError: empty, lengths that differ, or labels out of range.
        """
        images, references = np.asarray(images), np.asarray(references)
        names = tuple(str(name) for name in (range(len(images)) if ids is None else ids))
        if len(names) != len(images):
            raise DataError(f"{label}: expected {len(images)} ids, as of images, got {len(names)}")
        return cls(
            read=lambda indices: images[list(indices)],
            references=references,
            ids=names,
            cases=names if cases is None else tuple(map(str, cases)),
            sites=("",) * len(names),
            task=task,
            bounds=Bounds(*bounds),
            label=label,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, count: int) -> "Samples":
        """The first `count` samples."""
        if count >= len(self):
            return self
        return replace(
            self,
            references=self.references[:count],
            ids=self.ids[:count],
            cases=self.cases[:count],
            sites=self.sites[:count],
            prompts=None if self.prompts is None else self.prompts[:count],
            wordings={kind: texts[:count] for kind, texts in self.wordings.items()},
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read and check some samples.

        Raises:
            DataError: NaN or infinite pixels, values outside the bounds, or masks that do not fit
                the images or the classes.
        """
        images = self._images(self.read(indices), indices)
        references = self._masks(self.references[list(indices)].astype(np.int64), indices)
        plane = references.shape[2 if self._planes else 1 :]
        if self._dense and plane != images.shape[2:]:
            raise DataError(
                f"{self.label}: expected masks of the images' size {images.shape[2:]}, got {plane}"
            )
        return Batch(
            # cloned: torch aligns what it allocates, and sums may round by how values lie in memory
            images=torch.from_numpy(images).clone(),
            references=torch.from_numpy(references),
            samples=tuple(self.ids[i] for i in indices),
            cases=tuple(self.cases[i] for i in indices),
            sites=tuple(self.sites[i] for i in indices),
            prompts=None if self.prompts is None else tuple(self.prompts[i] for i in indices),
            wordings={kind: tuple(t[i] for i in indices) for kind, t in self.wordings.items()},
        )

    def batches(self, size: int) -> "Batches":
        """All samples in order, `size` at a time."""
        return Batches(self, size)

    def digest(self) -> str:
        """Check every sample and hash ids, cases, references, task, bounds and pixels (SHA-256).

        Raises:
            DataError: as `batch`.
        """
        sha = hashlib.sha256()
        contract = [self.ids, self.cases, self.sites, repr(self.task), list(self.bounds)]
        if self.prompts is not None:
            contract += [self.prompts, dict(self.wordings)]
        sha.update(registry.canonical(contract).encode())
        blocks = [range(i, min(i + 256, len(self))) for i in range(0, len(self), 256)]
        for indices in blocks:
            some = self._masks(self.references[list(indices)].astype(np.int64), indices)
            sha.update(np.ascontiguousarray(some).tobytes())
        for indices in blocks:
            raw = self.read(indices)
            self._images(raw, indices)
            sha.update(f"{raw.dtype} {raw.shape}".encode())
            sha.update(np.ascontiguousarray(raw).tobytes())
        return sha.hexdigest()

    def _images(self, raw: NDArray[Any], indices: Sequence[int]) -> NDArray[np.float32]:
        low, high = self.bounds
        if raw.dtype == np.uint8:
            return (raw.astype(np.float32) / 255.0) * np.float32(high - low) + np.float32(low)
        images = raw.astype(np.float32)
        flat = images.reshape(len(images), -1)
        for i, index in enumerate(indices):
            least, most = float(flat[i].min()), float(flat[i].max())
            if not np.isfinite([least, most]).all():
                raise DataError(
                    f"{self.label}: expected finite pixels, got NaN or infinity in sample"
                    f" {self.ids[index]!r}"
                )
            if least < low or most > high:
                raise DataError(
                    f"{self.label}: expected pixels within the bounds [{low:g}, {high:g}],"
                    f" got [{least:g}, {most:g}] in sample {self.ids[index]!r}"
                )
        return images

    @property
    def _dense(self) -> bool:
        return isinstance(self.task, Segmentation | PromptedSegmentation)

    @property
    def _planes(self) -> bool:
        return self._dense and not getattr(self.task, "exclusive", True)

    def _masks(self, references: NDArray[np.int64], indices: Sequence[int]) -> NDArray[np.int64]:
        """The same, after a look at the numbers in label maps and planes."""
        if not self._dense or not references.size:
            return references
        classes = len(self.task.classes)
        if self._planes and references.shape[1:2] != (classes,):
            raise DataError(
                f"{self.label}: expected {classes} mask planes, got shape {references.shape[1:]}"
            )
        top = 1 if self._planes else classes - 1
        bad = ((references < 0) | (references > top)).reshape(len(references), -1).any(axis=1)
        if bad.any():
            name = self.ids[indices[int(bad.argmax())]]
            raise DataError(
                f"{self.label}: expected mask values from 0 to {top}, got"
                f" {references.min()} to {references.max()} in sample {name!r}"
            )
        return references

    def _check_references(self) -> None:
        given, classes = self.references, len(self.task.classes)
        if isinstance(given, Masks) or not isinstance(self.task, Classification | MultiLabel):
            return  # masks are checked as they are read
        single = isinstance(self.task, Classification)
        top, shape = (classes - 1, (len(given),)) if single else (1, (len(given), classes))
        if given.shape != shape or given.dtype.kind not in "biuf":
            raise DataError(
                f"{self.label}: expected numbers of shape {shape} as references, got {given.dtype}"
                f" of shape {given.shape}"
            )
        bad = np.argwhere((given < 0) | (given > top) | (given % 1 != 0))
        if len(bad):
            raise DataError(
                f"{self.label}: expected labels from 0 to {top}, got {given[tuple(bad[0])]} in"
                f" sample {self.ids[bad[0][0]]!r}"
            )


@dataclass(frozen=True)
class Dataset(ABC):
    """Base of the components that read samples."""

    family: ClassVar[str] = "datasets"
    version: ClassVar[int] = 1

    @abstractmethod
    def _read(self) -> Samples:
        """Find the files and describe the samples."""

    @final
    def load(self, limit: int | None = None) -> Samples:
        """Read the samples, at most `limit` of them.

        Raises:
            DataError: missing, truncated or inconsistent files, with what to do about it.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit: expected 1 or more, got {limit}")
        samples = self._read()
        return samples if limit is None else samples.take(limit)
