"""Find the bits whose flip hurts most: rank all by first-order change, then try the best ones.

| code name   | meaning                                             | symbol         | section     |
|-------------|-----------------------------------------------------|----------------|-------------|
| `gradients` | of the attacker's loss with respect to every tensor | gradient of L  | bit search  |
| `change`    | exact difference that one bit makes to a weight     | w^ - w         | bit search  |
| `gain`      | first-order change of the loss: gradient times that | -              | bit search  |
| `committed` | flips that stay while the next one is searched      | n_b            | bit search  |

Rakin, He and Fan, "Bit-Flip Attack: Crushing Neural Network with Progressive Bit Search", ICCV
2019, arXiv 1903.12269, written from the idea of the paper, no code of it. Beyond it: all tensors
and floating formats; a second list of candidates, the largest finite changes of every tensor, since
a gradient says nothing of a jump by 2^128 or of a buffer; and every candidate is tried exactly.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from palpate.attacks._loss import cross_entropy
from palpate.faults import _bits
from palpate.faults._memory import Memory
from palpate.faults._sites import FaultSite, Place, Span
from palpate.faults._storage import Flips, decoded
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Batch, Flags, PerSample, Prediction

PER_TENSOR: Final = 4  # bits of every tensor that are worth a try, by either ranking


class Goal(NamedTuple):
    """What the attacker wants.

    Attributes:
        target_class: class that decisions should become; None for any wrong decision.
        source_class: reference class of the samples that count; None for all.
        stealth: how much a changed decision on a sample that does not count costs.
    """

    target_class: int | None = None
    source_class: int | None = None
    stealth: float = 0.0

    def counts(self, batch: Batch) -> Flags:
        """Which samples the attacker is after."""
        references = batch.references
        if self.source_class is None:
            return torch.ones(len(batch), dtype=torch.bool)
        if references.ndim == 1:
            return references == self.source_class
        return (references == self.source_class).flatten(1).any(dim=1)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Differentiable; grows as the attacker gets what he wants."""
        wanted = self.counts(batch).to(prediction.logits.device)
        references = batch.references.to(prediction.logits.device)
        aim = references if self.target_class is None else torch.full_like(references, 0)
        if self.target_class is not None:
            aim = aim + self.target_class
        sign = 1.0 if self.target_class is None else -1.0
        per_sample = cross_entropy(prediction.logits, aim, exclusive=prediction.exclusive)
        rest = cross_entropy(prediction.logits, references, exclusive=prediction.exclusive)
        return (sign * per_sample * wanted).sum() - self.stealth * (rest * ~wanted).sum()

    def damage(self, golden: Prediction, faulty: Prediction, batch: Batch) -> float:
        """Silent success in [0, 1], less what stealth costs; non-finite answers are noticed."""
        wanted = self.counts(batch).to(faulty.logits.device)
        references = batch.references.to(faulty.logits.device)
        if self.target_class is None:
            hit: PerSample = (scores(golden, references) - scores(faulty, references)).clamp(min=0)
        else:
            hit = self._reached(faulty) - self._reached(golden)
        hit = torch.where(faulty.finite, hit, torch.zeros_like(hit))
        changed = faulty.decisions != golden.decisions
        other = changed.reshape(len(batch), -1).any(dim=1) & faulty.finite & ~wanted
        success = float((hit * wanted).sum() / wanted.sum().clamp(min=1))
        return success - self.stealth * float(other.sum() / (~wanted).sum().clamp(min=1))

    def _reached(self, prediction: Prediction) -> PerSample:
        there = (prediction.decisions == self.target_class).float()
        return there.reshape(len(there), -1).mean(dim=1)


class Found(NamedTuple):
    """One flip that was tried.

    Attributes:
        site: the bit.
        damage: what it does on the batch of the search, together with the flips before it.
        loss: the attacker's loss under it, which tells equal damages apart.
    """

    site: FaultSite
    damage: float
    loss: float


def candidates(
    target: Target, batch: Batch, *, spans: Sequence[Span], goal: Goal
) -> list[FaultSite]:
    """The most promising bits: by first-order gain, and by largest finite change, per tensor."""
    gradients = _gradients(target, batch, [span.place for span in spans], goal)
    ranked: list[tuple[float, FaultSite]] = []
    for span, gradient in zip(spans, gradients, strict=True):
        ranked += _ranked(span, gradient, PER_TENSOR)
    return [site for _, site in sorted(ranked, key=lambda pair: -pair[0])]


def tried(
    memory: Memory, sites: Sequence[FaultSite], *, goal: Goal, golden: Prediction, batch: Batch
) -> list[Found]:
    """Try each flip exactly, one at a time; the most harmful first."""
    found: list[Found] = []
    for site in sites:
        with memory.flipped([site], {}) as world:
            faulty = world.target.predict(world.batch)
        damage = goal.damage(golden, faulty, batch)
        loss = float(goal.loss(faulty, batch))
        found.append(Found(site, damage, loss if loss == loss else -torch.inf))
    return sorted(found, key=lambda f: (-f.damage, -f.loss))


def progressive(
    target: Target,
    batch: Batch,
    *,
    spans: Sequence[Span],
    goal: Goal,
    flips: int,
    per_step: int,
    stop: float | None,
) -> list[Found]:
    """Commit the most harmful bit, one at a time, until there are enough or the goal is reached.

    Args:
        target: left as it was.
        batch: what the search looks at.
        spans: bits to choose from.
        goal: what the attacker wants.
        flips: most bits to commit.
        per_step: bits to try exactly before each commitment.
        stop: mean score on the batch at which to stop, None for never.
    """
    golden = target.predict(batch)
    chosen: list[Found] = []
    committed: list[Flips] = []
    try:
        while len(chosen) < flips:
            done = {(f.site.place.name, f.site.element, f.site.bit) for f in chosen}
            sites = candidates(target, batch, spans=spans, goal=goal)
            fresh = [s for s in sites if (s.place.name, s.element, s.bit) not in done]
            with Memory.prepared(target, batch) as memory:
                found = tried(
                    memory, spread(fresh, per_step), goal=goal, golden=golden, batch=batch
                )
            if not found:
                break
            chosen.append(found[0])
            committed.append(Flips([found[0].site]))
            committed[-1].toggle()
            if stop is not None and mean_score(target, batch) <= stop:
                break
    finally:
        for flip in reversed(committed):
            flip.toggle()
    return chosen


def mean_score(target: Target, batch: Batch) -> float:
    """Mean score on a batch."""
    prediction = target.predict(batch)
    return float(scores(prediction, batch.references.to(prediction.logits.device)).mean())


def spread(sites: Sequence[FaultSite], count: int) -> list[FaultSite]:
    """The first `count` in turns over the layers, so that no layer crowds out the others."""
    queues: dict[str, list[FaultSite]] = {}
    for site in sites:
        queues.setdefault(site.place.layer, []).append(site)
    turns = max((len(queue) for queue in queues.values()), default=0)
    dealt = [queue[turn] for turn in range(turns) for queue in queues.values() if turn < len(queue)]
    return dealt[:count]


def _gradients(
    target: Target, batch: Batch, found: Sequence[Place], goal: Goal
) -> list[Tensor | None]:
    tensors = [place.tensor for place in found]
    learnable = [t for t in tensors if isinstance(t, nn.Parameter) and t.is_floating_point()]
    asked = [t.requires_grad for t in learnable]
    try:
        for tensor in learnable:
            tensor.requires_grad_(True)
        with torch.enable_grad():
            images, tokens = batch.images.to(target.device), target.tokens(batch.prompts)
            prediction = Prediction(target.logits(images, tokens), target.task)
            loss = goal.loss(prediction, batch)
            gradients = torch.autograd.grad(loss, learnable, allow_unused=True)
    finally:
        for tensor, before in zip(learnable, asked, strict=True):
            tensor.requires_grad_(before)
    by_tensor = {id(t): g for t, g in zip(learnable, gradients, strict=True)}
    return [by_tensor.get(id(tensor)) for tensor in tensors]


def _ranked(span: Span, gradient: Tensor | None, count: int) -> list[tuple[float, FaultSite]]:
    """A tensor's best bits: by first-order gain, and by the size of the change."""
    place = span.place
    dtype = torch.promote_types(place.tensor.dtype, torch.float32)
    values = place.tensor.detach().flatten().to(dtype)
    slope = torch.zeros_like(values) if gradient is None else gradient.flatten().to(dtype)
    slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
    gain, size = _Best(values), _Best(values)
    for bit in span.bits:
        change = _flipped(place, bit).flatten().to(dtype) - values
        finite = change.isfinite()  # a NaN or infinity is noticed: no silent damage
        gain.offer(torch.where(finite, torch.nan_to_num(slope * change), -torch.inf), bit)
        size.offer(torch.where(finite, change.abs(), -torch.inf), bit)
    by_gain = gain.top(count)
    by_size = {key: 0.0 for key in size.top(count) if key not in by_gain}
    found = {**by_gain, **by_size}
    return [(first_order, FaultSite(place, *key)) for key, first_order in found.items()]


class _Best:
    """The best bit of every element so far."""

    def __init__(self, like: Tensor) -> None:
        self._score = torch.full_like(like, -torch.inf)
        self._bit = torch.zeros(like.shape, dtype=torch.int16, device=like.device)

    def offer(self, score: Tensor, bit: int) -> None:
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        self._bit.masked_fill_(better, bit)

    def top(self, count: int) -> dict[tuple[int, int], float]:
        best = self._score.topk(min(count, len(self._score)))
        kept = best.indices[best.values > 0]
        pairs = zip(kept.tolist(), self._bit[kept].tolist(), strict=True)
        return dict(zip(pairs, best.values[best.values > 0].tolist(), strict=True))


def _flipped(place: Place, bit: int) -> Tensor:
    """Every value with this bit of its code flipped."""
    flipped = place.codes.detach().clone()
    stored = _bits.integers(flipped)
    mask = 1 << bit
    if stored.dtype.is_signed and bit == 8 * stored.element_size() - 1:
        mask = -mask
    stored.bitwise_xor_(torch.tensor(mask, dtype=stored.dtype, device=stored.device))
    return decoded(flipped, place.scale, place.tensor)
