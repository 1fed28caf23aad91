"""SegPGD: PGD whose weight moves from the pixels that are right to those that are wrong.

Gu et al., "SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and Boosting
Segmentation Robustness", arXiv 2207.12391, section 3.2 and algorithm 1; the loss is in
`_dense_loss`. Without steps to come the right pixels alone count; at the end both count the same.

| code | meaning | symbol | section |
|---|---|---|---|
| steps | number of steps | T | algorithm 1 |
| step_size | length of one step | α | algorithm 1 |
| progress / 2 | weight of the wrong pixels | λ(t) = (t − 1) / 2T | 3.2 |
"""

from dataclasses import dataclass, field
from typing import Literal, final

from palpate.attacks._pixel_pgd import PixelPgd


@final
@dataclass(frozen=True)
class Segpgd(PixelPgd):
    """PGD on cross-entropy that first works on the right pixels, then on all alike.

    On a classification a sample is one pixel.

    Attributes:
        step_size: None for 2.5 · epsilon / steps.
    """

    loss: Literal["segpgd"] = field(default="segpgd", kw_only=True)  # pyright: ignore
