"""How one perturbation for many samples is found: by gradients, or by DeepFool sample by sample.

Both walk over the samples several times and keep the perturbation that was best on all of them.
Shafahi et al., "Universal Adversarial Training", arXiv 1811.11304, and Moosavi-Dezfooli et al.,
"Universal adversarial perturbations", arXiv 1610.08401.

| code | meaning | symbol | source |
|---|---|---|---|
| change | the perturbation | δ; v | 1811.11304, eq. 4; 1610.08401, algorithm 1 |
| epsilon | its radius | ε; ξ | the same |
| fooling_rate | share of fooled samples that ends the search | 1 − δ | 1610.08401, algorithm 1 |
| nearest | least change that fools one sample | Δv_i | 1610.08401, eq. 1 |
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from palpate.attacks._gradient import Rows, Search
from palpate.attacks._projection import direction, shaped, size
from palpate.attacks.deepfool import Deepfool
from palpate.scoring import scores
from palpate.types import Classification, Flags, Images, Logits, Prediction, References

Change = Tensor  # (1, channel, *spatial)

_CHUNK = 32  # samples per look; fixed, so that no result hangs on the audit's batch size
_FIRST = 0.25  # of the radius: length of the first gradient step
_REACH = 5.0  # of the radius: sum of the steps, were they all as long as the first


class Fitted(NamedTuple):
    """What a search for one perturbation came to.

    Attributes:
        change: the perturbation, in the ball.
        rounds: walks over the samples that were made.
        felt: whether any sample had a gradient.
    """

    change: Change
    rounds: int
    felt: bool


@dataclass(frozen=True)
class Crowd:
    """Samples that share one perturbation, and what is decided on them without it.

    Attributes:
        search: of the loss, among these samples.
        golden: decisions on the clean images.
        right: whether their score is above 0; true for all where it is for none.
        agreement: Dice with the golden mask below which a mask counts as fooled; a label counts
            when it changes.
    """

    search: Search
    golden: References
    right: Flags
    agreement: float

    @classmethod
    @torch.no_grad()
    def of(cls, search: Search, agreement: float) -> "Crowd":
        """Ask the target what it decides on the clean images."""
        answers = torch.cat([search.look(search.images[r], rows=r).logits for r in chunks(search)])
        right = search.judged(answers) > 0
        golden = Prediction(answers, search.target.task).decisions
        return cls(search, golden, right | ~right.any(), agreement)

    def placed(self, change: Change, rows: Rows) -> Images:
        """Images with the perturbation, within the bounds."""
        return (self.search.images[rows] + change).clamp(*self.search.target.bounds)

    def fooled(self, logits: Logits, rows: Rows) -> Flags:
        """Whether these are other decisions than without the perturbation."""
        agree = scores(Prediction(logits, self.search.target.task), self.golden[rows])
        return agree < (self.agreement if logits.ndim > 2 else 1.0)

    def asked(self, change: Change) -> tuple[float, tuple[float, float]]:
        """Share of fooled samples; mean score and mean loss, the latter negative to be ranked."""
        fooled, judged, losses = [], [], []
        for rows in chunks(self.search):
            answer = self.search.look(self.placed(change, rows), rows=rows)
            fooled.append(self.fooled(answer.logits, rows).float())
            judged.append(self.search.judged(answer.logits, rows))
            losses.append(answer.loss)
        rate, score, loss = (float(torch.cat(found).mean()) for found in (fooled, judged, losses))
        return rate, (score, -loss)

    def groups(self, number: int, count: int) -> Iterator[Rows]:
        """The samples in an order that hangs on the number of the walk, some at a time."""
        drawing = torch.Generator().manual_seed(number)
        order = torch.randperm(len(self.search.images), generator=drawing)
        return iter(order.to(self.search.images.device).split(count))


@dataclass(frozen=True)
class Climb:
    """Mini-batch gradient ascent on the shared perturbation.

    Only samples that are right when clean pull: the others have the largest losses, and lead to
    where the model is wrong already. 1811.11304 clips losses for the same end.

    Attributes:
        norm: of the ball.
        epsilon: its radius.
        rounds: walks over the samples.
        batch: samples per step.
        step_size: length of the first step, which then shrinks to nothing; None for a quarter of
            the radius, or more where the steps are few.
    """

    norm: Literal["linf", "l2"]
    epsilon: float
    rounds: int
    batch: int
    step_size: float | None

    def __call__(self, crowd: Crowd) -> Fitted:
        """Search; the perturbation with the lowest mean score after a walk is kept."""
        change = torch.zeros_like(crowd.search.images[:1])
        best, lowest, done = change, (torch.inf, torch.inf), 0
        updates = self.rounds * -(-len(crowd.search.images) // self.batch)
        first = self.step_size or self.epsilon * max(_FIRST, _REACH / updates)
        for number in range(self.rounds):
            for rows in crowd.groups(number, self.batch):
                pull = self._pull(crowd, change, rows, done / updates)
                length = first * (1 - done / updates)
                change = within(change + length * pull, self.norm, self.epsilon)
                done += 1
            _, now = crowd.asked(change)
            if now < lowest:
                best, lowest = change, now
        return Fitted(best, self.rounds, bool(crowd.search.felt.any()))

    def _pull(self, crowd: Crowd, change: Change, rows: Rows, progress: float) -> Change:
        """Steepest direction for those of these samples that are right when clean, together."""
        images = crowd.placed(change, rows)
        answer = crowd.search.ask(images, rows=rows, progress=progress)
        pulls = shaped(crowd.right[rows], images)
        # where an image is at a bound, and would only be pushed against it, it has no say
        wanted, bounds = crowd.search.images[rows] + change, crowd.search.target.bounds
        stuck = ((wanted < bounds.low) & (answer.gradient < 0)) | (
            (wanted > bounds.high) & (answer.gradient > 0)
        )
        counted = torch.where(pulls & ~stuck, answer.gradient, torch.zeros_like(answer.gradient))
        return direction(counted.sum(dim=0, keepdim=True), self.norm)


@dataclass(frozen=True)
class Fool:
    """The loop of 1610.08401 over all samples, again and again, until enough are fooled.

    Attributes:
        norm: of the ball.
        epsilon: its radius.
        rounds: most walks over the samples.
        batch: samples whose least changes are averaged into one update; 1 in the paper.
        fooling_rate: share of fooled samples at which the search ends.
        steps: of the search for one sample's least change.
        overshoot: share by which that change is lengthened.
        candidates: classes that it is compared with.
    """

    norm: Literal["linf", "l2"]
    epsilon: float
    rounds: int
    batch: int
    fooling_rate: float
    steps: int
    overshoot: float
    candidates: int

    def __call__(self, crowd: Crowd) -> Fitted:
        """Search; the perturbation that fooled most after a walk is kept."""
        change = torch.zeros_like(crowd.search.images[:1])
        best, most, number = change, -1.0, 0
        for number in range(1, self.rounds + 1):
            for rows in crowd.groups(number, self.batch):
                here = crowd.placed(change, rows)
                left = ~crowd.fooled(crowd.search.look(here, rows=rows).logits, rows)
                if bool(left.any()):
                    moved = self.nearest(crowd, here[left], rows[left]) - here[left]
                    step = moved.mean(dim=0, keepdim=True)
                    change = within(change + step, self.norm, self.epsilon)
            rate, _ = crowd.asked(change)
            if rate > most:
                best, most = change, rate
            if rate >= self.fooling_rate:
                break
        return Fitted(best, number, bool(crowd.search.felt.any()))

    def nearest(self, crowd: Crowd, here: Images, rows: Rows) -> Images:
        """A near image that is fooled, or the best that was found, for each of these."""
        search = crowd.search
        part = replace(
            search.part(rows),
            images=here,
            references=crowd.golden[rows],
            aim=None,
            nearest=self.norm,
        )
        if isinstance(search.target.task, Classification):
            inner = Deepfool(
                norm=self.norm,
                steps=self.steps,
                overshoot=self.overshoot,
                candidates=self.candidates,
            )
            inner._approach(part, range(len(here)))
            found = part.best
        else:
            found = self._stepped(crowd, part, rows)
        search.feel(part.felt, rows)
        search.passes += part.passes
        return found

    def _stepped(self, crowd: Crowd, part: Search, rows: Rows) -> Images:
        """Without one linear boundary: short steps along the loss until a sample is fooled."""
        images = part.images
        left = torch.arange(len(images), device=images.device)
        for step in range(self.steps):
            answer = part.ask(images[left], rows=left, progress=step / self.steps)
            if step:
                stay = ~crowd.fooled(answer.logits, rows[left])
                left, gradient = left[stay], answer.gradient[stay]
            else:  # who is fooled already was not asked
                gradient = answer.gradient
            if not len(left):
                break
            way = self.epsilon / self.steps * direction(gradient, self.norm)
            moved = (images[left] + (1 + self.overshoot) * way).clamp(*part.target.bounds)
            images = images.index_copy(0, left, moved)
        return images


def within(change: Change, norm: str, epsilon: float) -> Change:
    """The nearest point of the ball around no change."""
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    length = float(size(change, norm))
    # 1e-6 inside: rounding of image + change must not leave the ball
    return change * (epsilon * (1 - 1e-6) / length) if length > epsilon else change


def chunks(search: Search) -> Iterator[Rows]:
    """All samples of a search, some at a time."""
    everything = torch.arange(len(search.images), device=search.images.device)
    return iter(everything.split(_CHUNK))
