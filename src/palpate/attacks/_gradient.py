"""One forward and one backward with respect to the input only, remembering the best iterate."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from palpate.attacks._course import Course
from palpate.attacks._loss import Objective
from palpate.attacks._projection import finite, size
from palpate.attacks._success import Success
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Flags, Images, Logits, PerSample, Prediction, References, Tokens

Rows = Tensor  # indices of the samples that are still in the batch
Measure = Callable[[Logits], PerSample]


class Answer(NamedTuple):
    """What the target said of some points.

    Attributes:
        logits: detached.
        loss: per sample, detached.
        gradient: of the loss in the points; zero where none exists, it is not finite, or none was
            asked for.
    """

    logits: Logits
    loss: PerSample
    gradient: Images


@dataclass
class Search:
    """What one attack has seen so far, per sample; local to one call.

    The best iterate is the one with the lowest score (the audit's own measure), and among those
    the one with the highest cross-entropy, whatever loss is climbed; where `nearest` names a norm,
    it is the broken one (score 0) nearest to the clean input. The clean start is no iterate: an
    attack that finds nothing returns its best try, not the input.

    Attributes:
        target: the model, its parameters frozen by the caller.
        images: clean inputs (batch, channel, *spatial).
        references: what the attacker takes for the truth, as in `Batch.references`.
        tokens: of the prompts under which the search goes on; None where the task has none.
        objective: the loss to increase.
        aim: masks to come near to, in place of the references; the score is then 1 − Dice.
        nearest: norm whose smallest value is searched; None where the lowest score is.
        success: when masks are broken; None for a score of 0.
        course: how the cross-entropy went, the clean input included.
        best: best iterates so far; the clean input before any.
        score: score of `best`; infinite before any.
        loss: cross-entropy of `best`.
        distance: norm of the change of `best` in the `nearest` norm; infinite while unbroken.
        felt: whether a finite, non-zero gradient (or, without gradients, another loss) was met.
        passes: forward passes so far, in samples.
    """

    target: Target
    images: Images
    references: References
    objective: Objective = field(default_factory=Objective)
    tokens: Tokens | None = field(default=None, kw_only=True)
    aim: References | None = None
    nearest: str | None = None
    success: Success | None = None
    course: Course = field(init=False)
    best: Images = field(init=False)
    score: PerSample = field(init=False)
    loss: PerSample = field(init=False)
    distance: PerSample = field(init=False)
    felt: Flags = field(init=False)
    passes: int = 0

    def __post_init__(self) -> None:
        self.best = self.images
        self.score = torch.full((len(self.images),), torch.inf, device=self.images.device)
        self.loss = torch.full_like(self.score, -torch.inf)
        self.distance = torch.full_like(self.score, torch.inf)
        self.felt = torch.zeros_like(self.score, dtype=torch.bool)
        self.course = Course.of(self.score)

    def gradient(
        self, images: Images, *, rows: Rows | None = None, progress: float = 0.0
    ) -> Images:
        """Gradient of the summed loss at `images`; zero where none exists or it is not finite.

        Args:
            images: iterates of all samples, or of those in `rows`.
            rows: indices of the samples; None for all.
            progress: share of the steps that are done, for losses with a schedule.
        """
        return self.ask(images, rows=rows, progress=progress).gradient

    def ask(
        self,
        images: Images,
        *,
        rows: Rows | None = None,
        progress: float = 0.0,
        measure: Measure | None = None,
    ) -> Answer:
        """Logits, loss and input gradient at some points, which are remembered if they are best.

        Args:
            images: as in `gradient`.
            rows: as in `gradient`.
            progress: as in `gradient`.
            measure: another loss than the objective to climb, as a function of the logits.
        """
        points = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.answer(points, rows)
            loss = self._losses(logits, rows, progress) if measure is None else measure(logits)
            gradient = _input_gradient(loss, points)
        answer = Answer(logits.detach(), loss.detach(), finite(gradient))
        self._note(images, rows, answer, plain=measure is None and self._climbs_plain)
        return answer

    @torch.no_grad()
    def look(
        self, images: Images, *, rows: Rows | None = None, measure: Measure | None = None
    ) -> Answer:
        """Measure iterates without a gradient; arguments as in `ask`."""
        logits = self.answer(images, rows)
        loss = self._losses(logits, rows, 1.0) if measure is None else measure(logits)
        known = loss if measure is None and self._climbs_plain else None
        self.remember(images, rows, logits, known)
        return Answer(logits, loss, torch.zeros_like(images))

    def first(self, key: Hashable) -> Images:
        """Gradient at the clean input, which the settings of one attack share within an audit.

        Args:
            key: names all that determines it, apart from the target.
        """
        if self.target.memo is None:
            return self.gradient(self.images)
        asked: list[Answer] = []

        def ask() -> tuple[Tensor, ...]:
            asked.append(self.ask(self.images))
            return tuple(asked[0])

        answer = Answer(*self.target.memo.recall(("first", key), ask))
        if not asked:
            self._note(self.images, None, answer, plain=self._climbs_plain)
        return answer.gradient

    def answer(self, images: Images, rows: Rows | None = None) -> Logits:
        """Logits at some points, differentiable; whoever calls it calls `remember`."""
        return self.target.logits(images, some_of(self.tokens, rows))

    def begin(self, seeds: Sequence[int]) -> None:
        """Be told the samples' seeds, for what is random inside the target."""

    def standing(self, rows: Rows | None = None) -> Rows:
        """Which of the samples still have a score above 0."""
        among = torch.arange(len(self.images), device=self.images.device) if rows is None else rows
        return among[self.score[among] > 0]

    def part(self, rows: Rows) -> "Search":
        """A fresh search among some of the samples; hand it to `join` when it is over."""
        return Search(
            self.target,
            self.images[rows],
            self.references[rows],
            self.objective,
            some_of(self.aim, rows),
            self.nearest,
            self.success,
            tokens=some_of(self.tokens, rows),
        )

    def join(self, part: "Search", rows: Rows) -> None:
        """Take over what a part has found."""
        self._keep(part.best, rows, part.score, part.loss, part.distance)
        self.feel(part.felt, rows)
        self.course.join(part.course, rows)
        self.passes += part.passes

    def copies(self, count: int) -> "Search":
        """A fresh search with so many rows for each sample, one after the other; see `gather`."""
        rows = torch.arange(len(self.images), device=self.images.device)
        return self.part(rows.repeat_interleave(count))

    def gather(self, wide: "Search") -> None:
        """Take over what a search among copies has found, of each sample the best."""
        count = len(wide.images) // len(self.images)
        for k in range(count):
            one = slice(k, None, count)
            self._keep(wide.best[one], None, wide.score[one], wide.loss[one], wide.distance[one])
            self.feel(wide.felt[one], None)
        self.course.join(wide.course.gathered(count), None)
        self.passes += wide.passes

    def judged(self, logits: Logits, rows: Rows | None = None) -> PerSample:
        """Score in [0, 1] of some answers, 0 where the attack has all that it wants."""
        prediction = Prediction(logits, self.target.task)
        if self.aim is not None:
            return 1 - scores(prediction, some(self.aim, rows))
        if self.success is not None:
            return self.success.left(prediction, some(self.references, rows))
        return scores(prediction, some(self.references, rows))

    @property
    def _plain(self) -> Objective:
        """The cross-entropy, by which iterates of equal score are ranked."""
        return Objective(towards=self.aim is not None)

    @property
    def _climbs_plain(self) -> bool:
        return self.objective == self._plain

    def _note(self, images: Images, rows: Rows | None, answer: Answer, *, plain: bool) -> None:
        self.remember(images, rows, answer.logits, answer.loss if plain else None)
        self.feel(answer.gradient.flatten(1).abs().amax(dim=1) > 0, rows)

    def _losses(self, logits: Logits, rows: Rows | None, progress: float) -> PerSample:
        known = self.references if self.aim is None else self.aim
        exclusive = Prediction(logits, self.target.task).exclusive
        return self.objective(logits, some(known, rows), exclusive=exclusive, progress=progress)

    def feel(self, felt: Flags, rows: Rows | None) -> None:
        """Note which samples answered a change of the input."""
        if rows is None:
            self.felt |= felt
        else:
            self.felt[rows] |= felt

    def remember(
        self, images: Images, rows: Rows | None, logits: Logits, loss: PerSample | None = None
    ) -> None:
        """Keep iterates that are better than all before; whoever asks the target calls it.

        `loss` is their cross-entropy where it is known.
        """
        self.passes += len(images)
        if loss is None:
            known = some(self.references if self.aim is None else self.aim, rows)
            exclusive = Prediction(logits, self.target.task).exclusive
            loss = self._plain(logits, known, exclusive=exclusive)
        loss = torch.where(torch.isnan(loss), torch.inf, loss)
        self.course.note(loss, rows)
        if images is self.images:
            return
        score = self.judged(logits, rows)
        distance = torch.full_like(score, torch.inf)
        if self.nearest is not None:
            near = size(images - some(self.images, rows), self.nearest)
            distance = torch.where(score > 0, distance, near.to(distance.dtype))
        self._keep(images, rows, score, loss.to(self.loss.dtype), distance)

    def _keep(
        self,
        images: Images,
        rows: Rows | None,
        score: PerSample,
        loss: PerSample,
        distance: PerSample,
    ) -> None:
        old = some(self.score, rows)
        better = (score < old) | ((score == old) & (loss > some(self.loss, rows)))
        if self.nearest is not None:
            far = some(self.distance, rows)
            better = torch.where(torch.isinf(far), better, distance < far)
        where = better.reshape(-1, *(1 for _ in images.shape[1:]))
        self.best = put(self.best, rows, torch.where(where, images, some(self.best, rows)))
        self.score = put(self.score, rows, torch.where(better, score, old))
        self.loss = put(self.loss, rows, torch.where(better, loss, some(self.loss, rows)))
        kept = torch.where(better, distance, some(self.distance, rows))
        self.distance = put(self.distance, rows, kept)


def some(values: Tensor, rows: Rows | None) -> Tensor:
    """Values of some samples; of all for None."""
    return values if rows is None else values[rows]


def some_of(values: Tensor | None, rows: Rows | None) -> Tensor | None:
    """As `some`, where there may be none."""
    return None if values is None else some(values, rows)


def put(values: Tensor, rows: Rows | None, new: Tensor) -> Tensor:
    """Values with those of some samples replaced; of all for None."""
    return new if rows is None else values.index_copy(0, rows, new)


def _input_gradient(loss: PerSample, points: Images) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros_like(points)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss.sum(), points, allow_unused=True)
    # None where the output does not hang on the input; torch's types leave that out
    return torch.zeros_like(points) if found[0] is None else found[0]  # pyright: ignore
