"""A random walk upwards, each sample on its own, that asks several steps ahead where there is room.

A step is kept where it raises the loss, and few are. So the next steps of a sample are asked in one
batch, each as if none before it were kept; those after the first that is kept are dropped and made
anew from there. Every sample walks as if it had been asked step by step.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from palpate.attacks._gradient import Rows, Search
from palpate.attacks._loss import Objective
from palpate.types import Flags, Images, Logits, PerSample, Prediction

_AHEAD: Final = 0.25  # steps asked at once, as a share of those from one that is kept to the next
_HIGHEST: Final = 1e30  # what an infinite loss counts as in the course


class Change(NamedTuple):
    """What some steps change.

    Attributes:
        places: of the entries, in images laid out flat, (steps, entries); None for all of them.
        values: new ones, (steps, entries).
    """

    places: Tensor | None
    values: Tensor

    def before(self, images: Tensor, whose: Tensor) -> Tensor:
        """What stands there in the images (batch, entries) of these indices."""
        if self.places is None:
            return images.index_select(0, whose)
        return images.take(whose.unsqueeze(1) * images.shape[1] + self.places)

    def made(self, images: Tensor, whose: Tensor, which: Tensor) -> Tensor:
        """The images that some of the steps lead to, (which, entries)."""
        if self.places is None:
            return self.values.index_select(0, which)
        there = images.index_select(0, whose[which])
        return there.scatter_(1, self.places[which], self.values[which])


Proposing = Callable[[Images, Tensor, Rows, Tensor], Change]
"""Some steps: given images, whose of them, their indices in the search, the steps' numbers."""


@dataclass(frozen=True)
class _Place:
    """Where some samples are, and the best of what they met, in the search's own order.

    Attributes:
        rows: their indices, (batch,).
        at: the next step of each.
        images: the points that were kept last, (batch, channel, *spatial).
        loss: there.
        best: of the points met.
        answers: to `best`.
        score: of `best`.
        cross_entropy: of `best`.
        felt: whose loss ever changed.
    """

    rows: Rows
    at: Tensor
    images: Images
    loss: PerSample
    best: Images
    answers: Logits
    score: PerSample
    cross_entropy: PerSample
    felt: Flags

    def only(self, stay: Tensor) -> "_Place":
        return _Place(*(values[stay] for values in self.fields()))

    def put(self, other: "_Place") -> None:
        """Take over where others are."""
        for own, new in zip(self.fields(), other.fields(), strict=True):
            own[other.rows] = new

    def fields(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in dataclasses.fields(self)]


class _Told(NamedTuple):
    """What was said of some next steps, (samples, steps).

    Attributes:
        numbers: of the steps.
        asked: which were: not those that change nothing, or are beyond the end.
        loss: −∞ where not asked.
        score: infinite where not asked.
        cross_entropy: −∞ where not asked.
        images: where those asked lead, (asked, channel, *spatial).
        answers: to those asked.
    """

    numbers: Tensor
    asked: Tensor
    loss: Tensor
    score: Tensor
    cross_entropy: Tensor
    images: Images
    answers: Logits


class Walk:
    """A walk of all samples of a search; `go` some steps, then `close` it."""

    def __init__(self, search: Search, start: Images) -> None:
        """Look at the start, and at the clean inputs before it."""
        before, said = search.look(search.images), search.look(start)
        self._search = search
        self._asked, self._unfelt = 0, True
        self._met: list[tuple[Tensor, ...]] = []
        self._all = _Place(
            rows=torch.arange(len(start), device=start.device),
            at=torch.ones_like(said.loss, dtype=torch.long),
            images=start.clone(),
            loss=said.loss.clone(),
            best=start.clone(),
            answers=said.logits.clone(),
            score=search.score.to(said.loss.dtype, copy=True),
            cross_entropy=search.loss.to(said.loss.dtype, copy=True),
            felt=said.loss != before.loss,
        )

    @torch.no_grad()
    def go(self, propose: Proposing, end: int, *, room: int) -> None:
        """Walk on until a step, which is not taken, or until the score is 0.

        Args:
            propose: see `Proposing`.
            end: number of that step.
            room: most images at once.
        """
        tried = kept = 0
        place = self._all.only(self._all.score > 0)
        while len(place.rows):
            ahead = max(1, min(room // len(place.rows), int(_AHEAD * tried / (kept + 1))))
            told = self._told(place, propose, ahead, end)
            tried, kept = tried + len(place.rows) * ahead, kept + self._take(place, told, end)
            gone = (place.at >= end) | (place.score <= 0)
            if bool(gone.any()):
                self._all.put(place)
                place = place.only(~gone)

    def close(self) -> Images:
        """Tell the search, with an ask for each step, however many were asked at once.

        Returns:
            The points that were kept last.
        """
        search, place = self._search, self._all
        course = search.course
        peaks, asked = list(course.peaks), list(course.asked)
        found = place.only((place.score < search.score) | (place.cross_entropy > search.loss))
        search.remember(found.best, found.rows, found.answers)
        search.passes += self._asked - len(found.rows)
        search.feel(place.felt, None)
        most = int(place.at.max())
        risen = peaks[-1].repeat(most, 1)
        for rows, numbers, losses, counting in self._met:
            risen[numbers[counting], rows[counting]] = losses[counting].to(risen.dtype)
        number = torch.arange(most, device=risen.device).unsqueeze(1)
        course.peaks = peaks + list(risen.clamp(max=_HIGHEST).cummax(dim=0).values[1:])
        course.asked = asked + list(number < place.at)[1:]
        return place.images

    def _told(self, place: _Place, propose: Proposing, ahead: int, end: int) -> _Told:
        whose = torch.arange(len(place.rows), device=place.rows.device)
        whose = whose.repeat_interleave(ahead)
        rows = place.rows[whose]
        numbers = place.at.unsqueeze(1) + torch.arange(ahead, device=rows.device)
        flat = place.images.flatten(1)
        change = propose(place.images, whose, rows, numbers.flatten().clamp(max=end - 1))
        # a step that changes nothing cannot raise the loss
        asked = (change.values != change.before(flat, whose)).any(dim=1)
        asked &= (numbers < end).flatten()
        which = torch.nonzero(asked).flatten()
        images = change.made(flat, whose, which).view(len(which), *place.images.shape[1:])
        about, search = rows[which], self._search
        answers = search.answer(images, about)
        self._asked += len(which)
        exclusive = Prediction(answers, search.target.task).exclusive
        known = (search.references if search.aim is None else search.aim)[about]
        plain = Objective(towards=search.aim is not None)(answers, known, exclusive=exclusive)
        plain = plain.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        climbed = search.objective(answers, known, exclusive=exclusive, progress=1.0)
        said = torch.stack([climbed, search.judged(answers, about), plain]).to(place.loss.dtype)
        grid = said.new_full((3, len(rows)), -torch.inf)
        grid[1] = torch.inf
        grid = grid.index_copy_(1, which, said).view(3, *numbers.shape)
        loss, score, cross_entropy = grid.unbind()
        asked = asked.view_as(numbers)
        return _Told(numbers, asked, loss, score, cross_entropy, images, answers)

    def _take(self, place: _Place, told: _Told, end: int) -> int:
        """Take the steps of each sample up to the first that is kept; how many are."""
        old, steps = place.loss.unsqueeze(1), told.numbers.shape[1]
        better = told.loss > old
        turn = _in_turn(better | (told.score <= 0))
        counting = told.asked & turn
        place.at.add_(turn.sum(dim=1)).clamp_(max=end)
        rows = place.rows.unsqueeze(1).expand_as(counting)
        self._met.append((rows, told.numbers, told.cross_entropy, counting))
        if self._unfelt:
            place.felt.logical_or_((counting & (told.loss != old)).any(dim=1))
            self._unfelt = not bool(place.felt.all())
        among = told.asked.flatten().cumsum(dim=0) - 1  # where in what was asked
        who, step = torch.nonzero(better & counting, as_tuple=True)
        if len(who):
            place.images[who] = told.images[among[who * steps + step]]
            place.loss[who] = told.loss[who, step]
        score, loss, step = _best(told, counting)
        nearer = (score == place.score) & (loss > place.cross_entropy)
        better_met = torch.nonzero((score < place.score) | nearer).flatten()
        if len(better_met):
            which = among[better_met * steps + step[better_met]]
            place.best[better_met] = told.images[which]
            place.answers[better_met] = told.answers[which]
            place.score[better_met] = score[better_met]
            place.cross_entropy[better_met] = loss[better_met]
        return len(who)


def _in_turn(over: Tensor) -> Tensor:
    """Which steps come before the first that is over, or are it."""
    return torch.ones_like(over) if over.shape[1] == 1 else over.cumsum(dim=1) - over.int() == 0


def _best(told: _Told, counting: Tensor) -> tuple[PerSample, PerSample, Tensor]:
    """Lowest score of the steps that count, highest cross-entropy among those, and their step."""
    score = torch.where(counting, told.score, torch.inf)
    least = score.amin(dim=1, keepdim=True)
    loss, step = torch.where(score == least, told.cross_entropy, -torch.inf).max(dim=1)
    return least.squeeze(1), loss, step
