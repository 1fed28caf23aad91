"""When an attack that searches the nearest broken input has broken masks or labels."""

from dataclasses import dataclass
from typing import Literal

import torch

from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import PerSample, Prediction, References

Kind = Literal["pixel_success", "dice_below"]


@dataclass(frozen=True)
class Success:
    """Success on masks, and on labels that do not exclude each other.

    Attributes:
        kind: "pixel_success" when at least a share `bar` of the pixels is wrong (of the pixels of
            all planes where classes do not exclude each other), "dice_below" when the audit's
            score, Dice averaged over the foreground classes, is below `bar`. Of several labels
            each is a pixel, and the score is the share that is right. A single label is broken
            when it is wrong, either way.
        bar: in (0, 1].
    """

    kind: Kind
    bar: float

    def __post_init__(self) -> None:
        if not 0 < self.bar <= 1:
            name = "share of the pixels" if self.kind == "pixel_success" else "Dice"
            raise ConfigError(f"expected a {name} above 0, at most 1, got {self.bar}")

    def left(self, prediction: Prediction, references: References) -> PerSample:
        """What is left to break, (batch,) in [0, 1]: 0 where the attack has all that it wants.

        A non-finite output is broken, as the audit counts it.
        """
        if self.kind == "dice_below":
            score = scores(prediction, references)
            return torch.where(score < self.bar, torch.zeros_like(score), score)
        wrong = (prediction.decisions != references).reshape(len(references), -1)
        wrong = wrong.float().mean(dim=1)
        done = (wrong >= self.bar - 1e-7) | ~prediction.finite  # 1e-7: a mean of float32
        return torch.where(done, torch.zeros_like(wrong), 1 - wrong)
