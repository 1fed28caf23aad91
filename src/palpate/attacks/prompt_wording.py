"""Ask with another of the data's own wordings, such as a paraphrase of the class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from palpate.attacks._prompting import PromptAttack
from palpate.attacks._wording import worded
from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Batch


@final
@dataclass(frozen=True)
class PromptWording(PromptAttack):
    """The question of another kind; with several kinds, the worst of them.

    Attributes:
        kinds: of the data's wordings, such as ("c1", "c2"); each sample gets its worst.
    """

    kinds: tuple[str, ...] = ("c1",)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ConfigError("prompt_wording: expected one or more kinds, got none")

    @property
    @override
    def passes(self) -> float:
        return float(len(self.kinds))

    @override
    def candidates(self, target: Target, batch: Batch, seeds: Sequence[int]) -> list[Sequence[str]]:
        asked = [worded(batch, f"fixed:{kind}", seeds) or () for kind in self.kinds]
        return [list(texts) for texts in zip(*asked, strict=True)]
