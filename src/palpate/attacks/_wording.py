"""Which of the wordings of a question an attacker searches under."""

import random
from collections.abc import Sequence
from typing import Final

from palpate.errors import ConfigError
from palpate.types import Batch, PromptedSegmentation, Task

_FIXED: Final = "fixed:"


def check_wording(which: str) -> None:
    """Refuse a choice that is none.

    Raises:
        ConfigError: with the choices.
    """
    if which not in ("same", "random") and not which.removeprefix(_FIXED) != which:
        raise ConfigError(f"prompt: expected same, random or fixed:<kind>, got {which!r}")


def check_prompted(which: str, task: Task) -> None:
    """Refuse a choice of prompts where there are none.

    Raises:
        ConfigError: any choice but the usual one.
    """
    if which != "same" and not isinstance(task, PromptedSegmentation):
        raise ConfigError(f"prompt: expected 'same' for a task without prompts, got {which!r}")


def worded(batch: Batch, which: str, seeds: Sequence[int]) -> tuple[str, ...] | None:
    """One prompt per sample, or the batch's own.

    Args:
        batch: with `wordings`, unless the choice is "same".
        which: "same", "random" or "fixed:<kind>".
        seeds: one per sample; "random" draws with them, never the empty prompt.

    Raises:
        ConfigError: a kind that the data does not have, or no wordings at all.
    """
    if which == "same":
        return batch.prompts
    if which != "random":
        kind = which.removeprefix(_FIXED)
        if kind not in batch.wordings:
            known = ", ".join(batch.wordings) or "none"
            raise ConfigError(
                f"prompt: expected one of the data's wordings ({known}), got {kind!r}"
            )
        return batch.wordings[kind]
    choices = [
        sorted({t for t in texts if t}) for texts in zip(*batch.wordings.values(), strict=True)
    ]
    if not choices or not all(choices):
        raise ConfigError("prompt: expected data with wordings to draw from, got none")
    return tuple(random.Random(s).choice(c) for s, c in zip(seeds, choices, strict=True))
