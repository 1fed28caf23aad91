"""Checks of target sources."""

import torch

from palpate.contracts.oracles import expect
from palpate.errors import TargetError
from palpate.targets.base import Target, TargetSource
from palpate.types import Batch, Bounds, Classification, Segmentation

_TASKS = (Classification(("a", "b", "c")), Segmentation(("a", "b", "c")))
_SIDE = 32


def check_answers_for_every_class(source: TargetSource) -> None:
    """One logit or plane per class, in evaluation mode, for one and three channels."""
    for channels in (1, 3):
        target = _loaded(source, channels)
        if target is None:
            return
        logits = target.predict(_batch(channels)).logits
        plane = (_SIDE, _SIDE) if isinstance(target.task, Segmentation) else ()
        expect(
            logits.shape == (2, 3, *plane),
            f"{source!r}: answered {tuple(logits.shape)} for 3 classes",
        )
        expect(not target.module.training, f"{source!r}: left in training mode")


def check_predicting_changes_nothing(source: TargetSource) -> None:
    """The same question has the same answer, and the model is as it was."""
    target = _loaded(source, 1)
    if target is None:
        return
    digest, first = target.digest(), target.predict(_batch(1)).logits
    again = target.predict(_batch(1)).logits
    expect(torch.equal(first, again), f"{source!r}: answers the same question differently")
    expect(target.digest() == digest, f"{source!r}: predicting changed the model")


def _loaded(source: TargetSource, channels: int) -> Target | None:
    """The target, or None where the defaults name no network (a factory of the user's own)."""
    task = next((task for task in _TASKS if isinstance(task, source.serves)), _TASKS[0])
    try:
        return source.load(task=task, channels=channels, bounds=Bounds())
    except TargetError:
        return None


def _batch(channels: int) -> Batch:
    images = torch.rand((2, channels, _SIDE, _SIDE), generator=torch.Generator().manual_seed(4))
    names = ("a", "b")
    return Batch(images, torch.tensor([0, 1]), names, names, ("", ""))
