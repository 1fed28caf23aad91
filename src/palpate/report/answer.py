"""A question that a reader brings, and what the run says to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What the run says to one question about one model, or one pair.

    Attributes:
        who: the model, or both.
        verdict: "yes", "no" or "cannot tell", or a word of that kind.
        text: the numbers.
    """

    who: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: as a reader would ask it.
        answers: per model or pair.
    """

    text: str
    answers: tuple[Answer, ...]
