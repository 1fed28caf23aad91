"""Which failed check takes the ground from under a finding that nothing was lost."""

from collections.abc import Iterable
from typing import Final

from palpate.statistics._check import Check
from palpate.statistics._model_checks import BOX, GRADIENTS, LOGITS
from palpate.statistics._probe_checks import PROBE_CHECKS
from palpate.statistics._search_checks import CLAIMED, CONVERGED, RISES

_OF_ATTACKS: Final = frozenset(
    {
        *PROBE_CHECKS,
        BOX,
        CLAIMED,
        CONVERGED,
        GRADIENTS,
        LOGITS,
        RISES,
        "best iterate against last",
        "perturbation within the budget",
        "the attack could act",
    }
)
_NO_NUMBER: Final = frozenset({"every planned cell finished"})  # what is missing is said elsewhere


def doubt(model: str, family: str, failed: Iterable[Check]) -> Check | None:
    """The first failed check that concerns this model under this family; None if there is none.

    Args:
        model: label, with its defence.
        family: of perturbations.
        failed: checks that failed.
    """
    for check in failed:
        here = check.cell in ("", model) or check.cell.startswith(f"{model},")
        elsewhere = _NO_NUMBER if family == "attacks" else _NO_NUMBER | _OF_ATTACKS
        if here and check.check not in elsewhere:
            return check
    return None
