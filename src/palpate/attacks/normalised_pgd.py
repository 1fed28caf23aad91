"""FGSM and PGD as the public code of a study of vision-language segmentation runs them, defects in.

To reproduce that study, not to measure robustness: use `fgsm` and `pgd` for that. What the code
does otherwise than the papers it cites:

- epsilon and the step are lengths in the *normalised* input, so each channel has a budget of its
  own in pixels, epsilon times the target's standard deviation;
- the step is 2/255 whatever epsilon is, from the clean image: 40 steps reach 0.314, so a budget of
  0.5 is never spent, and one step is about half a grey level;
- iterates are not held to the legal range; what is left of them is cut off at the very end;
- the training loss, 1.5 · Dice + cross-entropy, is called with sigmoid outputs, and its
  cross-entropy takes the sigmoid again, so that it hardly pulls at a confident pixel, even a wrong
  one;
- the last iterate is returned, not the best;
- the question is drawn anew when the image is scored: `prompt: random` searches under one wording
  and is scored under another.

The study then wrote 8-bit or JPEG files and scored those: `storage: png:changed` or
`jpeg:75:changed` in the audit. Its FGSM is `steps: 1`.

| code | meaning | symbol | where |
|---|---|---|---|
| epsilon | radius in the normalised input | ε, 0.01, 0.03, 0.1, 0.5 | code of the study |
| step_size | length of one step there | α = 2/255 | the same |
| steps | 40; one step has the whole length ε | – | the same |
| double_sigmoid | cross-entropy with logits, called with sigmoid outputs | – | the same |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import check_steps
from palpate.attacks._dense_loss import plane_loss
from palpate.attacks._gradient import Search
from palpate.attacks._projection import finite
from palpate.attacks._wording import check_prompted, check_wording, worded
from palpate.attacks.base import AnyAttack, check_epsilon
from palpate.errors import BudgetError
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import (
    Batch,
    Images,
    Logits,
    PerSample,
    Prediction,
    References,
)

_DICE: Final = 1.5
_CROSS: Final = 1.0


@final
@dataclass(frozen=True)
class NormalisedPgd(AnyAttack):
    """n ← clip(n + α · sign(∇n J), n0 ± ε) in the normalised input; reproduces a study's defects.

    No measure of robustness: see the module for what it gets wrong, and `pgd` for what to use. For
    labels a sample is one pixel, and with softmax heads "sigmoid" reads softmax.

    Attributes:
        epsilon: largest absolute change in the *normalised* input; in pixels epsilon times the
            target's standard deviation, so it compares with no other attack's epsilon.
        steps: gradient steps; 1 is the study's FGSM, a step of the whole epsilon.
        step_size: in the normalised input.
        double_sigmoid: give the cross-entropy sigmoid outputs where it expects logits, as the study
            does; false for the loss that was meant.
        prompt: the question under which the attacker searches, see pgd.
        norm: says in the record that this budget is none in pixels; there is no other.
    """

    dose: ClassVar[str] = "epsilon"

    epsilon: Number = 0.03
    steps: int = 40
    step_size: Number = 2 / 255
    double_sigmoid: bool = True
    prompt: str = "same"
    norm: Literal["linf_normalised"] = field(default="linf_normalised", kw_only=True)

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_steps(self.steps, self.step_size)
        check_wording(self.prompt)

    @property
    @override
    def budget(self) -> float:
        return self.epsilon

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + 2

    @override
    def check(self, target: Target) -> None:
        """Refuse a choice of prompts where there are none.

        Raises:
            ConfigError: `prompt` for a task without prompts.
            CapabilityError: a target without gradients.
        """
        super().check(target)
        check_prompted(self.prompt, target.task)

    @override
    def _prompts(self, batch: Batch, seeds: Sequence[int]) -> tuple[str, ...] | None:
        return worded(batch, self.prompt, seeds)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        search.look(search.images)  # what the loss rises from
        mean, std = _per_channel(search.target, search.images)
        start = (search.images - mean) / std
        step = self.epsilon if self.steps == 1 else self.step_size
        here = start
        for _ in range(self.steps):
            gradient = self._gradient(search, here * std + mean)
            change = here + step * gradient.sign() - start
            here = start + change.clamp(-self.epsilon, self.epsilon)
        images = (here * std + mean).clamp(*search.target.bounds)
        # what did not move in the normalised input has not moved, whatever rounding says
        images = torch.where(here == start, search.images, images)
        search.look(images)
        return images

    def _gradient(self, search: Search, images: Images) -> Images:
        """Gradient of the study's loss; the iterate is not remembered, it may be no legal image."""
        points = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = search.answer(points)
            loss = study_loss(
                logits,
                search.references,
                exclusive=Prediction(logits, search.target.task).exclusive,
                double=self.double_sigmoid,
            )
            gradient = torch.zeros_like(points)
            if loss.requires_grad:
                found: tuple[Tensor | None, ...] = torch.autograd.grad(
                    loss.sum(), points, allow_unused=True
                )
                gradient = gradient if found[0] is None else found[0]  # pyright: ignore
        search.passes += len(images)
        gradient = finite(gradient)
        search.feel((gradient != 0).flatten(1).any(dim=1), None)
        return gradient

    @override
    def _check_budget(self, search: Search, images: Images) -> None:
        _, std = _per_channel(search.target, images)
        bounds = search.target.bounds
        spent = (images.double() - search.images.double()).abs()
        over = (spent - self.epsilon * std).amax()
        if float(over) > 1e-6 * (bounds.high - bounds.low):
            raise BudgetError(
                f"{self!r}: expected at most {self.epsilon:.8g} of the normalised input, spent"
                f" {float((spent / std).max()):.8g}"
            )


def study_loss(
    logits: Logits, references: References, *, exclusive: bool, double: bool
) -> PerSample:
    """1.5 · Dice + 1.0 · cross-entropy per sample, as the study's training and attacks call it.

    Args:
        logits: (batch, classes, *spatial); for labels without the spatial axes.
        references: as in `Batch.references`.
        exclusive: softmax if true, sigmoid if not.
        double: cross-entropy of the sigmoid outputs taken for logits, in place of the logits'.
    """
    if logits.ndim == 2:
        logits, references = logits.unsqueeze(2), references.unsqueeze(references.ndim)
    outputs = logits.softmax(dim=1) if exclusive else logits.sigmoid()
    dice = plane_loss("dice", logits, references, exclusive=exclusive, swap=False)
    taken = outputs if double else logits
    name = "ce" if exclusive else "bce"
    cross = plane_loss(name, taken, references, exclusive=exclusive, swap=False)
    return _DICE * dice + _CROSS * cross


def _per_channel(target: Target, images: Images) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, to add to and multiply images with."""
    shape = (1, -1, *(1 for _ in images.shape[2:]))
    return (
        images.new_tensor(target.mean).reshape(shape),
        images.new_tensor(target.std).reshape(shape),
    )
