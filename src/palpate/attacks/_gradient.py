"""One forward and one backward with respect to the input only, remembering the best iterate."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from palpate.attacks._loss import cross_entropy
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Flags, Images, Logits, PerSample, Prediction, References


@dataclass
class Search:
    """What one attack has seen so far, per sample; local to one call.

    The best iterate is the one with the lowest score (the audit's own measure), and among those
    the one with the highest loss. The clean start is no iterate: an attack that finds nothing
    returns its best try, not the input.

    Attributes:
        target: the model, its parameters frozen by the caller.
        images: clean inputs (batch, channel, *spatial).
        references: as in `Batch.references`.
        best: best iterates so far; the clean input before any.
        score: score of `best`; infinite before any.
        loss: loss of `best`.
        felt: whether a finite, non-zero gradient was met.
        forwards: model passes so far, each over the whole batch.
    """

    target: Target
    images: Images
    references: References
    best: Images = field(init=False)
    score: PerSample = field(init=False)
    loss: PerSample = field(init=False)
    felt: Flags = field(init=False)
    forwards: int = 0

    def __post_init__(self) -> None:
        self.best = self.images
        self.score = torch.full((len(self.images),), torch.inf, device=self.images.device)
        self.loss = torch.full_like(self.score, -torch.inf)
        self.felt = torch.zeros_like(self.score, dtype=torch.bool)

    def gradient(self, images: Images) -> Images:
        """Gradient of the summed loss at `images`; zero where none exists or it is not finite."""
        points = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.target.logits(points)
            loss = self._losses(logits)
            gradient = _input_gradient(loss, points)
        self._remember(images, logits.detach(), loss.detach())
        finite = torch.isfinite(gradient)
        gradient = torch.where(finite, gradient, torch.zeros_like(gradient))
        self.felt |= (gradient != 0).flatten(1).any(dim=1)
        return gradient

    @torch.no_grad()
    def look(self, images: Images) -> None:
        """Measure an iterate without a gradient."""
        logits = self.target.logits(images)
        self._remember(images, logits, self._losses(logits))

    def _losses(self, logits: Logits) -> PerSample:
        exclusive = Prediction(logits, self.target.task).exclusive
        return cross_entropy(logits, self.references, exclusive=exclusive)

    def _remember(self, images: Images, logits: Logits, loss: PerSample) -> None:
        self.forwards += 1
        if images is self.images:
            return
        score = scores(Prediction(logits, self.target.task), self.references)
        loss = torch.where(torch.isnan(loss), torch.inf, loss)
        better = (score < self.score) | ((score == self.score) & (loss > self.loss))
        where = better.reshape(-1, *(1 for _ in images.shape[1:]))
        self.best = torch.where(where, images, self.best)
        self.score = torch.where(better, score, self.score)
        self.loss = torch.where(better, loss, self.loss)


def _input_gradient(loss: PerSample, points: Images) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros_like(points)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss.sum(), points, allow_unused=True)
    # None where the output does not hang on the input; torch's types leave that out
    return torch.zeros_like(points) if found[0] is None else found[0]  # pyright: ignore
