"""CosPGD: PGD whose pixels weigh as much as their prediction still agrees with the label.

Agnihotri, Jung, Keuper, "CosPGD: an efficient white-box adversarial attack for pixel-wise
prediction tasks", arXiv 2302.02213, section 3; the loss is in `_dense_loss`. The weight is a
constant for the gradient, as in the paper.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | number of steps | T | algorithm 1 |
| step_size | length of one step | α | algorithm 1 |
| cosine | similarity of the softmax with the one-hot label, per pixel | cossim | 3 |
"""

from dataclasses import dataclass, field
from typing import Literal, final

from palpate.attacks._pixel_pgd import PixelPgd


@final
@dataclass(frozen=True)
class Cospgd(PixelPgd):
    """PGD on cross-entropy weighted by the cosine of prediction and label.

    On a classification a sample is one pixel.

    Attributes:
        step_size: None for 2.5 · epsilon / steps.
    """

    loss: Literal["cospgd"] = field(default="cospgd", kw_only=True)  # pyright: ignore
