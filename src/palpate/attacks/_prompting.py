"""Base of the attacks that change the question and leave the image alone."""

from abc import abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar, final

import torch
from typing_extensions import override

from palpate import registry
from palpate.errors import CapabilityError
from palpate.outcome import Status
from palpate.perturbation import Perturbation, World
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Prediction, PromptedSegmentation


@dataclass(frozen=True)
class PromptAttack(Perturbation):
    """Ask other questions and keep, for each sample, the one with the lowest score.

    The score is that of the audit: Dice with the reference of the question as it was. Where the
    new question means something else (`changes_meaning`), a model that reads it should lose that
    reference: there a score that stays is the finding.
    """

    family: ClassVar[str] = "attacks"

    @property
    def changes_meaning(self) -> bool:
        """Whether the right answer to the new question is another one."""
        return False

    @abstractmethod
    def candidates(self, target: Target, batch: Batch, seeds: Sequence[int]) -> list[Sequence[str]]:
        """Other questions for each sample; none where there is nothing to change."""

    @override
    def check(self, target: Target) -> None:
        """Refuse a target that is asked no questions.

        Raises:
            CapabilityError: with the task.
        """
        super().check(target)
        if not isinstance(target.task, PromptedSegmentation):
            raise CapabilityError(
                f"{registry.name_of(self)}: expected a task of PromptedSegmentation, got"
                f" {type(target.task).__name__}"
            )

    @override
    def seeds(self, campaign: int) -> Seeds:
        """The same draws for every setting, so that settings compare like with like."""
        return Seeds(
            campaign=campaign, cell=registry.canonical([registry.name_of(self), self.version])
        )

    @final
    def __call__(
        self, target: Target, batch: Batch, *, seeds: Sequence[int] | None = None
    ) -> tuple[str, ...]:
        """The worst question found for each sample.

        Args:
            target: of a prompted task.
            batch: with prompts.
            seeds: one per sample; the position by default.

        Raises:
            CapabilityError: the task has no prompts.
        """
        self.check(target)
        assert batch.prompts is not None  # a prompted target refuses batches without
        drawn = list(range(len(batch))) if seeds is None else seeds
        best = list(batch.prompts)
        least = [float("inf")] * len(batch)
        for asked in zip_longest(*self.candidates(target, batch, drawn)):
            rows = [i for i, text in enumerate(asked) if text is not None]
            found = asked_scores(target, batch, {i: asked[i] for i in rows})
            for i, score in zip(rows, found, strict=True):
                if score < least[i]:
                    best[i], least[i] = asked[i], score
        return tuple(best)

    @final
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        """Yield the same target and images, and the worst questions."""
        texts = self(target, batch, seeds=seeds.per_sample(batch.samples))
        same = zip(texts, batch.prompts or (), strict=True)
        status = tuple(Status.NO_MOVE if new == old else Status.OK for new, old in same)
        yield World(target, batch.with_prompts(texts), status)


@torch.no_grad()
def asked_scores(target: Target, batch: Batch, questions: dict[int, str]) -> list[float]:
    """Score of some samples of a batch under other questions, in the order given."""
    if not questions:
        return []
    rows = torch.tensor(list(questions))
    images = batch.images[rows].to(target.device)
    logits = target.logits(images, target.tokens(list(questions.values())))
    return scores(
        Prediction(logits, target.task), batch.references[rows].to(target.device)
    ).tolist()
