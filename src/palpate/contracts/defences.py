"""Checks of defences."""

import torch

from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, expect, probe
from palpate.defences.base import Defence
from palpate.outcome import Status


def check_keeps_shape_and_task(defence: Defence) -> None:
    """The protected target answers as many classes, and is another target."""
    bare, given = probe(), batch(3)
    protected = defence.protect(bare)
    expect(
        protected.predict(given).logits.shape == bare.predict(given).logits.shape
        and protected.task == bare.task
        and protected.bounds == bare.bounds,
        f"{defence!r}: changed the shape, the task or the bounds",
    )
    expect(protected.digest() != bare.digest(), f"{defence!r}: protects nothing")


def check_leaves_the_bare_target_alone(defence: Defence) -> None:
    """The given target answers as before."""
    bare, given = probe(), batch(3)
    digest, before = bare.digest(), bare.predict(given).logits
    defence.protect(bare).predict(given)
    expect(
        bare.digest() == digest and torch.equal(bare.predict(given).logits, before),
        f"{defence!r}: changed the bare target",
    )


def check_can_be_attacked_through(defence: Defence) -> None:
    """Gradients reach the input, so that an attack on the protected target is adaptive."""
    given = batch(3)
    found = Pgd(steps=3).search(defence.protect(probe()), given.images, given.references)
    expect(
        all(status is Status.OK for status in found.status),
        f"{defence!r}: hides the gradient; a robust number behind it would be false",
    )
