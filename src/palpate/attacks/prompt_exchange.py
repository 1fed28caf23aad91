"""Exchange tokens of the question where the gradient of the loss says that it hurts most.

Ebrahimi, Rao, Lowd, Dou, "HotFlip: White-Box Adversarial Examples for Text Classification", arXiv
1712.06751, section 3: the loss after an exchange is estimated to first order in the embedding of
the token; here the best estimates are then asked for real, and only what lowers the score is kept.

| code | meaning | symbol | section |
|---|---|---|---|
| tokens | most exchanges for each sample | r | 4 |
| gain | (e(new) − e(old)) · ∂J/∂e(old) | first-order change of J | 3.1 |
| tries | estimates that are asked for real | beam | 3.3 |
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from palpate.attacks._loss import LossName, Objective
from palpate.attacks._prompting import PromptAttack, asked_scores
from palpate.errors import CapabilityError, ConfigError
from palpate.targets.base import Target
from palpate.types import Batch


class _Slope(NamedTuple):
    """Ids (batch, token), embedding (words, size), and the loss's gradient (batch, token, size)."""

    ids: Tensor
    table: Tensor
    gradient: Tensor


@final
@dataclass(frozen=True)
class PromptExchange(PromptAttack):
    """Exchange a few tokens for any others, one after the other; further ones only if they hurt.

    Attributes:
        tokens: most exchanges for each sample: the budget.
        tries: exchanges that are asked for real before each is made.
        loss: what the gradient is of.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    dose: ClassVar[str] = "tokens"

    tokens: int = 1
    tries: int = 6
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        if self.tokens < 0 or self.tries < 1:
            raise ConfigError(
                "prompt_exchange: expected tokens of 0 or more and tries of 1 or more, got"
                f" {self.tokens} and {self.tries}"
            )

    @property
    @override
    def passes(self) -> float:
        return float(self.tokens * (3 + self.tries))

    @override
    def check(self, target: Target) -> None:
        """Refuse a target whose tokenizer cannot turn ids back into text.

        Raises:
            CapabilityError: with what it lacks.
        """
        super().check(target)
        lacking = [n for n in ("text", "special") if not hasattr(target.tokenizer, n)]
        if lacking:
            raise CapabilityError(
                f"prompt_exchange: expected a tokenizer with text(ids) and special, {target.name}'s"
                f" has no {' and no '.join(lacking)}"
            )

    @override
    def candidates(self, target: Target, batch: Batch, seeds: Sequence[int]) -> list[Sequence[str]]:
        assert batch.prompts is not None
        # the first exchange is kept whatever it does: finding nothing is no standing still
        best, least = list(batch.prompts), [float("inf")] * len(batch)
        with target.frozen():
            for _ in range(self.tokens):
                slope = self._slope(target, batch.with_prompts(tuple(best)))
                choices = [_likely(target, slope, row, self.tries) for row in range(len(batch))]
                for asked in _turns(choices):
                    found = asked_scores(target, batch, asked)
                    for row, score in zip(asked, found, strict=True):
                        if score < least[row]:
                            best[row], least[row] = asked[row], score
        return [[new] if new != old else [] for new, old in zip(best, batch.prompts, strict=True)]

    def _slope(self, target: Target, batch: Batch) -> _Slope:
        tokens = target.tokens(batch.prompts)
        assert tokens is not None
        references = batch.references.to(target.device)
        with _embedding(target.module, tokens) as met, torch.enable_grad():
            logits = target.logits(batch.images.to(target.device), tokens)
            loss = Objective(self.loss)(logits, references, exclusive=target.is_exclusive)
            table, vectors = met()
            (gradient,) = torch.autograd.grad(loss.sum(), vectors)
        return _Slope(tokens, table.detach(), torch.nan_to_num(gradient))


@contextmanager
def _embedding(module: nn.Module, tokens: Tensor) -> Generator[Callable[[], tuple[Tensor, Tensor]]]:
    """Find the embedding that looks the tokens up while the module runs, and its answer.

    Raises:
        CapabilityError: on asking, if none did.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not isinstance(part, nn.Embedding) or inputs[0].shape != tokens.shape:
            return None
        if not torch.equal(inputs[0], tokens):
            return None
        vectors = output.detach().requires_grad_()
        seen.append((part.weight, vectors))
        return vectors

    def met() -> tuple[Tensor, Tensor]:
        if not seen:
            raise CapabilityError(
                "prompt_exchange: expected a module that looks its tokens up in an nn.Embedding"
            )
        return seen[0]

    hooks = [m.register_forward_hook(hook) for m in module.modules() if isinstance(m, nn.Embedding)]
    try:
        yield met
    finally:
        for one in hooks:
            one.remove()


def _likely(target: Target, slope: _Slope, row: int, count: int) -> list[str]:
    """Texts with one token exchanged, by estimated gain, that read back as they were meant."""
    tokenizer: Any = target.tokenizer
    ids, gradient = slope.ids[row], slope.gradient[row]
    special = tokenizer.special
    inside = [i for i, token in enumerate(ids.tolist()) if token not in special]
    if not inside:
        return []
    places = torch.tensor(inside, device=ids.device)
    gain = gradient[places] @ slope.table.T
    gain = gain - gain.gather(1, ids[places].unsqueeze(1))
    gain[:, list(special)] = -torch.inf
    found: list[str] = []
    words = gain.shape[1]
    for flat in gain.flatten().topk(min(gain.numel(), 8 * count)).indices.tolist():
        new = ids.clone()
        new[places[flat // words]] = flat % words
        text = tokenizer.text(new.tolist())
        # what the model will be asked is the text, so it has to be cut into the same tokens again
        if text not in found and torch.equal(tokenizer([text])[0].to(ids.device), new):
            found.append(text)
        if len(found) == count:
            break
    return found


def _turns(choices: Sequence[Sequence[str]]) -> Generator[dict[int, str]]:
    """The first choice of every row, then the second of those that have one, ..."""
    for turn in range(max(map(len, choices), default=0)):
        yield {row: texts[turn] for row, texts in enumerate(choices) if turn < len(texts)}
