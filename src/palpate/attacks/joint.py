"""Change image and question together: the question, then the image under it, in turns.

A sample that the image alone breaks further keeps its question, so that both together are never
weaker than the image alone.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from typing_extensions import override

from palpate.attacks.base import Found, check_epsilon
from palpate.attacks.pgd import Pgd
from palpate.attacks.prompt_exchange import PromptExchange
from palpate.errors import ConfigError
from palpate.perturbation import Perturbation, World
from palpate.registry import Number
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, PerSample


@final
@dataclass(frozen=True)
class Joint(Perturbation):
    """PGD on the image and a gradient-guided exchange of tokens, one budget each.

    Attributes:
        epsilon: largest allowed norm of the image's change, in units of the target's bounds.
        norm: "linf" or "l2".
        steps: gradient steps on the image in each turn.
        tokens: most tokens exchanged.
        turns: how often both are changed; the image starts from the clean one each time.
    """

    family: ClassVar[str] = "attacks"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    dose: ClassVar[str] = "epsilon"

    epsilon: Number = field(default=2 / 255, kw_only=True)
    norm: Literal["linf", "l2"] = field(default="linf", kw_only=True)
    steps: int = 10
    tokens: int = 1
    turns: int = 1

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.turns < 1:
            raise ConfigError(f"joint: expected turns of 1 or more, got {self.turns}")
        _ = self._image, self._text  # refuse what they refuse

    @property
    def _image(self) -> Pgd:
        return Pgd(epsilon=self.epsilon, norm=self.norm, steps=self.steps)

    @property
    def _text(self) -> PromptExchange:
        return PromptExchange(tokens=self.tokens)

    @property
    @override
    def passes(self) -> float:
        return self.turns * (self._image.passes + self._text.passes) + self._image.passes

    @override
    def check(self, target: Target) -> None:
        """Refuse what either of both refuses.

        Raises:
            CapabilityError: a target without prompts.
            ConfigError: a budget beyond the bounds.
        """
        self._text.check(target)
        self._image.check(target)

    @override
    @contextmanager
    def applied(self, target: Target, batch: Batch, *, seeds: Seeds) -> Generator[World]:
        drawn = seeds.per_sample(batch.samples)
        texts, found = self._turn(target, batch, batch, drawn)
        for _ in range(1, self.turns):
            texts, found = self._turn(target, batch, batch.with_images(found.images), drawn)
        alone = self._image.search(
            target, batch.images, batch.references, prompts=batch.prompts, seeds=drawn
        )
        asked = batch.with_images(found.images).with_prompts(texts)
        plain = batch.with_images(alone.images)
        worse = _scored(target, plain) < _scored(target, asked)
        where = worse.reshape(-1, *(1 for _ in batch.images.shape[1:]))
        kept = zip(worse.tolist(), batch.prompts or (), texts, strict=True)
        asked = asked.with_prompts(tuple(own if keep else new for keep, own, new in kept))
        pairs = zip(worse.tolist(), alone.status, found.status, strict=True)
        yield World(
            target,
            asked.with_images(torch.where(where, alone.images, found.images)),
            tuple(first if keep else second for keep, first, second in pairs),
            last=torch.where(where, alone.last, found.last),
        )

    def _turn(
        self, target: Target, batch: Batch, attacked: Batch, seeds: Sequence[int]
    ) -> tuple[tuple[str, ...], Found]:
        """A question for the image as it is by now, then an image for that question."""
        texts = self._text(target, attacked, seeds=seeds)
        found = self._image.search(
            target, batch.images, batch.references, prompts=texts, seeds=seeds
        )
        return texts, found


def _scored(target: Target, batch: Batch) -> PerSample:
    return scores(target.predict(batch), batch.references.to(target.device))
