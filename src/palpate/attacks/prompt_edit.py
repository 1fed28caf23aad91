"""Ask in other words: synonyms, typing errors, cut-off ends; or ask for something else.

Jin, Jin, Zhou, Szolovits, "Is BERT Really Robust?", arXiv 1907.11932 (words of like meaning);
Pruthi, Dhingra, Lipton, "Combating Adversarial Misspellings", arXiv 1905.11268, section 3 (swap,
drop, add and keyboard errors inside a word, first and last letter kept). The words come from
data/prompt_words.yaml.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, final

import yaml
from typing_extensions import override

from palpate.attacks._prompting import PromptAttack
from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Batch

_KEYS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@final
@dataclass(frozen=True)
class PromptEdit(PromptAttack):
    """The worst of several edits of one kind.

    Attributes:
        kind: "synonym", "typo", "truncation" and "empty" ask for the same thing in other or fewer
            words; "location" exchanges left and right, top and bottom; "negation" and "organ" ask
            for what is not there, so that the right answer is an empty mask.
        edits: words exchanged, letters mistyped, or words cut off the end.
        queries: most questions tried for each sample.
    """

    kind: Literal["synonym", "typo", "truncation", "empty", "location", "negation", "organ"] = (
        "synonym"
    )
    edits: int = 1
    queries: int = 8

    def __post_init__(self) -> None:
        if self.edits < 1 or self.queries < 1:
            raise ConfigError(
                f"prompt_edit: expected edits and queries of 1 or more, got {self.edits} and"
                f" {self.queries}"
            )

    @property
    @override
    def passes(self) -> float:
        return float(self.queries)

    @property
    @override
    def changes_meaning(self) -> bool:
        return self.kind in ("location", "negation", "organ", "empty")

    @override
    def candidates(self, target: Target, batch: Batch, seeds: Sequence[int]) -> list[Sequence[str]]:
        return [
            self._edited(text, seed) for text, seed in zip(batch.prompts or (), seeds, strict=True)
        ]

    def _edited(self, text: str, seed: int) -> list[str]:
        """At most `queries` other texts, each once."""
        draw = random.Random(seed)
        words = _words()
        if self.kind == "empty":
            made = [""]
        elif self.kind == "negation":
            made = [form.format(text) for form in words["negations"]]
        elif self.kind == "organ":
            made = _elsewhere(text, words)
        elif self.kind == "location":
            made = [_turned(text, words["opposites"])]
        elif self.kind == "truncation":
            kept = text.split()[: -self.edits]
            made = [" ".join(kept)] if kept else []
        elif self.kind == "synonym":
            made = _exchanged(text, words["synonyms"], self.edits, draw)
        else:
            made = [_mistyped(text, self.edits, draw) for _ in range(self.queries)]
        return [new for new in dict.fromkeys(made) if new != text][: self.queries]


@cache
def _words() -> dict[str, Any]:
    text = resources.files("palpate").joinpath("data/prompt_words.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def _has(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def _elsewhere(text: str, words: dict[str, Any]) -> list[str]:
    """Findings of other organs than the one that the text names."""
    own = [w for row in words["organs"] if any(_has(text, w) for w in row) for w in row]
    return [finding for finding in words["findings"] if not any(_has(finding, w) for w in own)]


def _turned(text: str, pairs: Sequence[Sequence[str]]) -> str:
    """Every direction exchanged for its opposite at once."""
    other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    found = re.compile(rf"\b({'|'.join(other)})\b", re.IGNORECASE)
    return found.sub(lambda match: other[match[0].lower()], text)


def _exchanged(
    text: str, rows: Sequence[Sequence[str]], edits: int, draw: random.Random
) -> list[str]:
    """Texts with up to `edits` words exchanged for others of their row, in a drawn order."""
    made, frontier = [], [text]
    for _ in range(edits):
        frontier = [
            re.sub(rf"\b{re.escape(word)}\b", other, start, flags=re.IGNORECASE)
            for start in frontier
            for row in rows
            for word in sorted(row, key=len, reverse=True)
            if _has(start, word)
            for other in row
            if other != word
        ]
        draw.shuffle(frontier)
        made = [*frontier, *made]
    return made


def _mistyped(text: str, edits: int, draw: random.Random) -> str:
    """One typing error in each of up to `edits` words of four letters or more."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4]
    for i in draw.sample(long, min(edits, len(long))):
        word = words[i]
        at = draw.randrange(1, len(word) - 2)
        near = _beside(word[at].lower())
        words[i] = draw.choice(
            [
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],  # swap
                word[:at] + word[at + 1 :],  # drop
                word[:at] + draw.choice(near) + word[at:],  # add
                word[:at] + draw.choice(near) + word[at + 1 :],  # keyboard
            ]
        )
    return " ".join(words)


def _beside(letter: str) -> str:
    """The keys to the left and right; the letter itself where it is on no key."""
    row = next((keys for keys in _KEYS if letter in keys), letter)
    at = row.index(letter)
    return row[max(0, at - 1) : at] + row[at + 1 : at + 2] or letter
