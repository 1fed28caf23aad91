"""Target x batch x perturbation -> outcomes. Tensors stop here.

For every batch: enter what is common to all trials, take the golden (undisturbed) answer, then
for every trial enter its disturbed world, ask again, and turn the two answers into plain numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palpate.attacks._projection import size
from palpate.errors import ContractError
from palpate.filing import filed, refiled
from palpate.outcome import Certificate, Outcome, Status, Trace, Verdict
from palpate.perturbation import Perturbation, World
from palpate.regions import Region, compare, lost
from palpate.scoring import planes, scores
from palpate.storage import Storage
from palpate.targets._certifying import certificates
from palpate.targets._golden import golden_answer
from palpate.targets.base import Target
from palpate.types import Batch, Images, Prediction
from palpate.worst_cases import Pictures, WorstCases


@dataclass
class Evaluation:
    """What one cell gave.

    Attributes:
        outcomes: sorted by trial, then in the order of the dataset.
        notes: per trial, what the perturbation said of it.
        images: for the report, as `WorstCases.arrays` has them, or empty.
    """

    outcomes: list[Outcome]
    notes: list[dict[str, Any]]
    images: dict[str, NDArray[Any]]


def evaluate(
    target: Target,
    batches: Iterable[Batch],
    *,
    perturbation: Perturbation | None = None,
    seed: int = 0,
    storage: str | Storage = "float32",
    gallery: int = 0,
    study: Batch | None = None,
) -> Evaluation:
    """Measure one target under one perturbation.

    Args:
        target: the (possibly defended) model.
        batches: samples in order; a fault campaign that stops by itself reads them several times.
        perturbation: None for the clean cell.
        seed: campaign seed; every draw hangs on it, the perturbation and the sample ids.
        storage: how images are stored before they are judged, such as "uint8" or "jpeg:90"; see
            `Storage`.
        gallery: how many worst cases to keep as images.
        study: samples that a search may look at before it meets any batch; the same whatever the
            batch size.

    Raises:
        ContractError: the perturbation broke a guarantee of its family.
        CapabilityError: images that such a file cannot hold.
        MemoryError, torch.OutOfMemoryError: a batch does not fit; an audit then halves it.
    """
    storage = Storage.parse(storage)
    kept = WorstCases(gallery)
    outcomes: list[Outcome] = []
    notes: dict[int, dict[str, Any]] = {}
    entering = perturbation
    if perturbation is not None and study is not None:
        entering = perturbation.fitted(target, study)
    while True:
        for batch in batches:
            images = batch.images.to(target.device)
            clean = batch.with_images(filed(images, storage, target.bounds))
            known: _Regions | None = None
            for trial, golden, entered in _worlds(target, clean, entering, seed):
                world = _stored(entered, clean.images, storage)
                known = known or _Regions(golden, clean.references.to(golden.logits.device))
                prediction = world.target.predict(world.batch)
                found = _outcomes(clean, (golden, prediction), world, trial, known=known)
                notes.setdefault(trial, world.notes)
                outcomes += found
                if world.batch.images is not clean.images:
                    _offer(kept, found, clean=clean, world=world, answers=(golden, prediction))
        entering = None if entering is None else entering.continued(outcomes)
        if entering is None:
            break
        if iter(batches) is batches:
            raise ContractError(
                "evaluate: expected batches that can be read again, got an iterator"
            )
    outcomes.sort(key=lambda o: o.trial)  # stable: the dataset's order within a trial
    return Evaluation(outcomes, [notes[t] for t in sorted(notes)], kept.arrays())


def _worlds(
    target: Target, batch: Batch, perturbation: Perturbation | None, seed: int
) -> Iterator[tuple[int, Prediction, World]]:
    if perturbation is None:
        proved = certificates(target, batch, seed)
        undisturbed = World.undisturbed(target, batch)
        yield 0, golden_answer(target, batch), undisturbed._replace(certificates=proved)
        return
    seeds = perturbation.seeds(seed)
    with perturbation.prepared(target, batch) as enter:
        as_it_is = type(perturbation).prepared is Perturbation.prepared
        golden = golden_answer(target, batch) if as_it_is else target.predict(batch)
        for trial in range(perturbation.first, perturbation.repeats):
            with enter(seeds.at(trial)) as world:
                yield trial, golden, world


def _stored(world: World, clean: Images, storage: Storage) -> World:
    if storage.format == "float32" or world.batch.images is clean:
        return world  # a fault in the model: nothing new to store, nothing for the gallery
    bounds = world.target.bounds
    images = refiled(world.batch.images, storage, bounds, clean=clean)
    if world.last is None:
        return world._replace(batch=world.batch.with_images(images))
    # an attack that storage undoes has not attacked, whatever it did before
    same = (images == clean).flatten(1).all(dim=1).tolist()
    undone = zip(world.status, same, strict=True)
    status = tuple(Status.NO_MOVE if s and old is Status.OK else old for old, s in undone)
    last = refiled(world.last, storage, bounds, clean=clean)
    return world._replace(batch=world.batch.with_images(images), last=last, status=status)


def _outcomes(
    clean: Batch,
    answers: tuple[Prediction, Prediction],
    world: World,
    trial: int,
    *,
    known: "_Regions",
) -> list[Outcome]:
    golden, prediction = answers
    references = clean.references.to(prediction.logits.device)
    decided = golden.decisions
    if world.carry is not None:
        references, decided = world.carry(references), world.carry(decided)
        known = _Regions(prediction, references)
    columns = _Columns(prediction, golden, references, decided=decided)
    same = world.last is None or torch.equal(world.last, world.batch.images)
    last = columns.score if same else _last_scores(world, references)
    moved = world.batch.images - clean.images
    linf, l2, l0 = (size(moved, norm).tolist() for norm in ("linf", "l2", "l0"))
    traces = world.traces or (Trace(),) * len(clean)
    proved = world.certificates or (Certificate(),) * len(clean)
    return [
        Outcome(
            sample=clean.samples[i],
            case=clean.cases[i],
            site=clean.sites[i],
            trial=trial,
            reference=columns.reference[i],
            decision=columns.decision[i] if columns.finite[i] else (),
            probabilities=columns.probabilities[i],
            score=columns.score[i],
            last_score=last[i],
            finite=columns.finite[i],
            identical=columns.identical[i],
            verdict=columns.verdict[i],
            linf=linf[i],
            l2=l2[i],
            l0=l0[i],
            status=world.status[i],
            regions=regions,
            prompt="" if world.batch.prompts is None else world.batch.prompts[i],
            pixels=columns.pixels,
            wrong_pixels=columns.wrong_pixels[i],
            changed_pixels=columns.changed_pixels[i],
            claimed=traces[i].claimed,
            rise=traces[i].rise,
            late=traces[i].late,
            radius=proved[i].radius,
            certified=proved[i].certified,
            abstained=proved[i].abstained,
        )
        for i, regions in enumerate(known.of(prediction))
    ]


class _Regions:
    """Masks of one batch compared with the reference, those of the golden answer once."""

    def __init__(self, golden: Prediction, references: Tensor) -> None:
        self._dense = golden.logits.ndim > 2
        if self._dense:
            self._finite: NDArray[np.bool_] = golden.finite.cpu().numpy()
            self._expected: NDArray[np.bool_] = planes(references, golden).cpu().numpy()
            self._decided: NDArray[np.bool_] = planes(golden.decisions, golden).cpu().numpy()
            self._golden = self._compared(golden, self._decided, {})

    def of(self, prediction: Prediction) -> list[tuple[Region, ...]]:
        """Per sample one region per foreground class; empty for labels."""
        if not self._dense:
            return [()] * len(prediction.logits)
        decided = planes(prediction.decisions, prediction).cpu().numpy()
        same = (decided == self._decided).reshape(len(decided), -1).all(axis=1) & self._finite
        known = {int(i): self._golden[i] for i in np.flatnonzero(same)}
        return self._compared(prediction, decided, known)

    def _compared(
        self,
        prediction: Prediction,
        decided: NDArray[np.bool_],
        known: dict[int, tuple[Region, ...]],
    ) -> list[tuple[Region, ...]]:
        return [
            tuple(map(lost, self._expected[i]))
            if not finite
            else known.get(i) or tuple(map(compare, decided[i], self._expected[i]))
            for i, finite in enumerate(prediction.finite.tolist())
        ]


class _Columns:
    """The numbers of one batch of predictions, as Python lists."""

    def __init__(
        self, prediction: Prediction, golden: Prediction, references: Tensor, *, decided: Tensor
    ) -> None:
        count = len(references)
        flat = prediction.logits.ndim == 2
        decisions = prediction.decisions
        self.finite: list[bool] = prediction.finite.tolist()
        self.score: list[float] = scores(prediction, references).tolist()
        self.identical: list[bool] = _equal_bits(prediction.logits, golden.logits).tolist()
        changed = (decisions != decided).reshape(count, -1).sum(dim=1).tolist()
        self.verdict = [
            Verdict.DUE if not f else Verdict.SDC if c else Verdict.MASKED
            for f, c in zip(self.finite, changed, strict=True)
        ]
        self.pixels = 0 if flat else decisions[0].numel()
        wrong = (decisions != references).reshape(count, -1).sum(dim=1).tolist()
        self.wrong_pixels = self._counted(wrong)
        self.changed_pixels = self._counted(changed)
        self.reference = _rows(references, flat=flat)
        self.decision = _rows(decisions, flat=flat)
        self.probabilities = _rows(prediction.probabilities, flat=flat)

    def _counted(self, differing: list[int]) -> list[int]:
        """Pixels that differ, all of them where there was no decision; 0 for labels."""
        pairs = zip(differing, self.finite, strict=True)
        return [min(count, self.pixels) if finite else self.pixels for count, finite in pairs]


def _rows(values: Tensor, *, flat: bool) -> list[tuple[Any, ...]]:
    if not flat:
        return [()] * len(values)
    return [tuple(row) for row in values.reshape(len(values), -1).tolist()]


def _equal_bits(a: Tensor, b: Tensor) -> Tensor:
    """Per sample, whether two float32 tensors agree bit for bit, NaN payloads included."""
    same = a.contiguous().view(torch.int32) == b.contiguous().view(torch.int32)
    return same.flatten(1).all(dim=1)


def _last_scores(world: World, references: Tensor) -> list[float]:
    assert world.last is not None
    prediction = world.target.predict(world.batch.with_images(world.last))
    return scores(prediction, references).tolist()


def _offer(
    kept: WorstCases,
    found: list[Outcome],
    *,
    clean: Batch,
    world: World,
    answers: tuple[Prediction, Prediction],
) -> None:
    golden, now = answers
    references = clean.references.to(golden.logits.device)
    moved = references if world.carry is None else world.carry(references)
    before = scores(golden, references).tolist()
    dense = golden.logits.ndim > 2
    # once for the batch: each look at `decisions` is an argmax over all of it
    masks = (references, golden.decisions, now.decisions, moved) if dense else ()

    def pictures(i: int) -> Pictures:
        shown = [clean.images[i], world.batch.images[i], *(mask[i] for mask in masks)]
        first, second, *rest = (tensor.cpu() for tensor in shown)
        return Pictures(first, second, tuple(rest))

    for i, outcome in enumerate(found):
        kept.offer(outcome, before[i], partial(pictures, i))
