"""A target that is asked questions, for perturbations that have to do with them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from palpate.contracts.oracles import SHAPE, probe
from palpate.errors import CapabilityError
from palpate.perturbation import Perturbation
from palpate.targets.base import Target
from palpate.types import Batch, PromptedSegmentation

_WORDS = ("", "<end>", *"abcdefghijklmnopqrstuvwxyz ")
_LENGTH = 24
_QUESTIONS = ("left lesion", "small lesion on top", "polyp")


def needs_prompts(perturbation: Perturbation) -> bool:
    """Whether this perturbation refuses a task without questions."""
    try:
        perturbation.check(probe())
    except CapabilityError:
        return True
    return False


def prompted(*, row_by_row: bool = False) -> Target:
    """A network that reads every letter of its question.

    Args:
        row_by_row: look at one image at a time, so that rounding cannot hang on the batch.
    """
    module = _Reader(row_by_row=row_by_row).eval()
    return Target(module, PromptedSegmentation(), name="reader", tokenizer=Letters())


def with_questions(given: Batch) -> Batch:
    """The same images, with a mask and a question each."""
    references = (given.images[:, :1] > 0.6).long()
    texts = [_QUESTIONS[sum(map(ord, name)) % len(_QUESTIONS)] for name in given.samples]
    wordings = {"c1": tuple(f"the {text}" for text in texts)}
    return replace(given, references=references, prompts=tuple(texts), wordings=wordings)


class Letters:
    """Letters as tokens."""

    special = frozenset({0, 1})

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(prompt, token), padded."""
        rows = [[_WORDS.index(c) for c in p.lower() if c in _WORDS[2:]] for p in prompts]
        return torch.tensor([(r[: _LENGTH - 1] + [1] + [0] * _LENGTH)[:_LENGTH] for r in rows])

    def text(self, ids: Sequence[int]) -> str:
        """The letters."""
        return "".join(_WORDS[i] for i in ids if i not in self.special)

    def __repr__(self) -> str:
        return "letters"


class _Reader(nn.Module):
    def __init__(self, *, row_by_row: bool) -> None:
        super().__init__()
        self.row_by_row = row_by_row
        self.words = nn.Embedding(len(_WORDS), 6)
        self.look = nn.Conv2d(SHAPE[0], 6, kernel_size=3, padding=1)
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for tensor in self.parameters():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        rows = images.split(1 if self.row_by_row else len(images))
        seen = torch.cat([self.look(row) for row in rows]).tanh()
        asked = self.words(tokens).mean(dim=1).tanh()
        return (seen * asked[:, :, None, None]).sum(dim=1, keepdim=True)
