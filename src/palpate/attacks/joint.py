"""Change image and question together: the question, then the image under it, in turns.

Of all turns, and of the image alone under the audit's own question, each sample keeps what leaves
the lowest score; so more turns are never weaker.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, final

import torch
from typing_extensions import override

from palpate.attacks._call import Found, Given
from palpate.attacks.base import check_epsilon
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
    version = 2

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
        own = tuple(batch.prompts or ())
        best = self._tried(target, batch, own, drawn)
        shown = batch
        for _ in range(self.turns):
            texts = self._text(target, shown, seeds=drawn)
            tried = self._tried(target, batch, texts, drawn)
            shown = batch.with_images(tried.found.images)
            best = best.worse(tried)
        asked = batch.with_images(best.found.images).with_prompts(best.prompts)
        yield World(target, asked, best.found.status, last=best.found.last)

    def _tried(
        self, target: Target, batch: Batch, prompts: tuple[str, ...], seeds: Sequence[int]
    ) -> "_Tried":
        """The image attack under some questions."""
        given = Given(target, batch.images, batch.references, prompts, seeds)
        found = self._image.whole(given)
        answer = target.predict(batch.with_images(found.images).with_prompts(prompts))
        return _Tried(prompts, found, scores(answer, batch.references.to(target.device)))


class _Tried(NamedTuple):
    """Questions, what the image attack found under them, and the scores that are left."""

    prompts: tuple[str, ...]
    found: Found
    score: PerSample

    def worse(self, other: "_Tried") -> "_Tried":
        """Per sample, whichever left the lower score; this one where both left the same."""
        other_is = other.score < self.score
        where = other_is.reshape(-1, *(1 for _ in self.found.images.shape[1:]))
        prompts = zip(other_is.tolist(), self.prompts, other.prompts, strict=True)
        status = zip(other_is.tolist(), self.found.status, other.found.status, strict=True)
        found = self.found._replace(
            images=torch.where(where, other.found.images, self.found.images),
            last=torch.where(where, other.found.last, self.found.last),
            status=tuple(b if later else a for later, a, b in status),
        )
        kept = tuple(b if later else a for later, a, b in prompts)
        return _Tried(kept, found, torch.minimum(self.score, other.score))
