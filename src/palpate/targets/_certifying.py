"""Targets that can prove something about their own answers, such as smoothed ones."""

from typing import Protocol, runtime_checkable

from palpate.outcome import Certificate
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch


@runtime_checkable
class Certifying(Protocol):
    """A module that has a certificate for each of its answers."""

    def certify(self, batch: Batch, seeds: Seeds) -> tuple[Certificate, ...]:
        """One certificate per sample; its draws hang on the samples' ids."""
        ...


def certificates(target: Target, batch: Batch, campaign: int) -> tuple[Certificate, ...]:
    """What the target proves of its answers; empty where it proves nothing.

    Args:
        target: the (possibly defended) model.
        batch: undisturbed samples.
        campaign: seed of the audit.
    """
    module = target.module
    if not isinstance(module, Certifying):
        return ()
    return module.certify(batch, Seeds(campaign, "certificate"))
