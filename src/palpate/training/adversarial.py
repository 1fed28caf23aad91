"""Adversarial training: learn from the worst images that an attack finds within its budget.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083,
section 2, eq. 2.1 (the saddle point) and section 4. The inner maximum is one of this repository's
attacks, asked in evaluation mode, so that batch statistics are those of the images learned from.

| code | meaning | symbol | section |
|---|---|---|---|
| attack | finds the inner maximum | max over δ in S | 2, eq. 2.1 |
| share | of each batch that is attacked | 1 in the paper | – |
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from palpate import config
from palpate.attacks.base import AnyAttack
from palpate.config import Spec
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.training.masks import are_masks
from palpate.types import Bounds, Classification, Prediction, PromptedSegmentation, Segmentation


class Adversarial(BaseModel):
    """The attack in the loop.

    Attributes:
        attack: `{name: ..., parameters}` as in an audit file; epsilon in units of [0, 1].
        share: of each batch that is attacked; the rest is learned from as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attack: Spec = Field(default_factory=lambda: {"name": "pgd", "epsilon": "8/255", "steps": 7})
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    @model_validator(mode="after")
    def _known(self) -> Self:
        if "name" not in self.attack:
            raise ValueError("attack: expected a 'name'")
        try:
            config.build("attacks", self.attack)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


def harden(
    model: nn.Module,
    examples: Sequence[Tensor | None],
    how: Adversarial,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seeds: Seeds,
) -> Tensor:
    """Images of a batch, the first `share` of them attacked.

    Args:
        model: as it is trained; its mode and its gradients are left as they were.
        examples: images in [0, 1], labels or masks, and tokens or None, on any device.
        how: the attack, and on how many.
        mean: per channel.
        std: per channel.
        seeds: of this batch.

    Raises:
        CapabilityError: the attack does not fit the task.
        ConfigError: its loss or its epsilon does not.
    """
    images, labels, tokens, *_ = examples
    assert images is not None
    assert labels is not None
    count = max(1, round(how.share * len(images)))
    first = [None if x is None else x[:count] for x in (images, labels, tokens)]
    moved = _attacked(model, first, how, mean=mean, std=std, seeds=seeds)[0]
    return torch.cat([moved.cpu(), images[count:]])


def robust_score(
    model: nn.Module,
    examples: Sequence[Tensor | None],
    how: Adversarial,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seeds: Seeds,
    batch_size: int = 256,
) -> float:
    """Mean score of a split under the attack: share right, or Dice.

    Arguments as in `harden`; images are uint8 here, and of several wordings the first is asked.
    """
    images, labels, tokens, *_ = examples
    assert images is not None
    assert labels is not None
    found: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        asked = None if tokens is None else tokens[rows, 0]
        part = (images[rows] / 255, labels[rows], asked)
        here = seeds.at(start)
        moved, target, prompts = _attacked(model, part, how, mean=mean, std=std, seeds=here)
        with _evaluating(model), torch.no_grad():
            logits = target.logits(moved, target.tokens(prompts))
        found.append(scores(Prediction(logits, target.task), labels[rows].to(logits.device).long()))
    return float(torch.cat(found).double().mean())


def _attacked(
    model: nn.Module,
    examples: Sequence[Tensor | None],
    how: Adversarial,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seeds: Seeds,
) -> tuple[Tensor, Target, list[str] | None]:
    images, labels, tokens, *_ = examples
    assert images is not None
    assert labels is not None
    attack: AnyAttack = config.build("attacks", how.attack)
    with _evaluating(model):
        target = _target(model, labels, tokens, mean=mean, std=std, sample=images[:1])
        prompts = None if tokens is None else [str(i) for i in range(len(images))]
        drawn = seeds.per_sample(str(i) for i in range(len(images)))
        moved = attack(target, images, labels.long(), prompts=prompts, seeds=drawn)
    return moved, target, prompts


def _target(
    model: nn.Module,
    labels: Tensor,
    tokens: Tensor | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    sample: Tensor,
) -> Target:
    """The network as an attack sees it; prompts are the rows of the tokens."""
    shared: dict[str, Any] = {"bounds": Bounds(), "mean": mean, "std": std, "name": "in training"}
    if tokens is not None:

        def look_up(prompts: Sequence[str]) -> Tensor:
            return tokens[[int(prompt) for prompt in prompts]]

        return Target(model, PromptedSegmentation(), tokenizer=look_up, **shared)
    device = next(model.parameters()).device
    with torch.no_grad():
        outputs = model(sample.to(device)).shape[1]
    exclusive = labels.ndim == sample.ndim - 1
    classes = tuple(str(i) for i in range(max(outputs, 2) if exclusive else outputs))
    if not are_masks(labels):
        classes = tuple(str(i) for i in range(outputs))
        return Target(model, Classification(classes), **shared)
    return Target(model, Segmentation(classes, exclusive), **shared)


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
