"""One exception tree.

::

    PalpateError
    ├── UsageError              the user can mend it: one line, exit 2, no traceback
    │   ├── ConfigError         audit file: unknown key, wrong type, value out of range
    │   │   └── UnknownComponent  misspelt name; the nearest names are offered
    │   ├── DataError           dataset: missing, truncated, empty, out of bounds, NaN, bad labels
    │   ├── TargetError         model: training mode, wrong class count, non-finite output
    │   │   └── CheckpointError   weights that do not fit, or a pickle
    │   ├── CapabilityError     this perturbation cannot run on this target
    │   └── StoreError          run directory: of another audit, read-only, full
    └── ContractError           a component broke its family's guarantee (a defect, not a setting)
        ├── BudgetError         perturbed further than epsilon, or outside the bounds
        └── RestorationError    the model was not left as it was

One warning stands beside it: OutOfMemoryWarning, a batch was too large and smaller ones did.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PalpateError(Exception):
    """Root of every error that Palpate raises on purpose."""


class UsageError(PalpateError):
    """Something the user can mend; the command line prints it as one line and exits with 2."""


class ConfigError(UsageError):
    """The audit file, or a component's parameters, do not say something valid."""


class UnknownComponent(ConfigError):
    """No component, key or variant of that name."""


class DataError(UsageError):
    """The dataset cannot be read or does not hold what it declares."""


class TargetError(UsageError):
    """The model under audit is not fit to be audited."""


class CheckpointError(TargetError):
    """The weights do not fit the model, or are not safe to load."""


class CapabilityError(UsageError):
    """The perturbation needs something that this target does not offer."""


class StoreError(UsageError):
    """The run directory cannot be used."""


class ContractError(PalpateError):
    """A component broke a guarantee of its family."""


class BudgetError(ContractError):
    """An input was moved further than its budget allows, or out of the legal range."""


class RestorationError(ContractError):
    """A perturbation did not leave the target as it was."""


class OutOfMemoryWarning(RuntimeWarning):
    """A batch did not fit into memory; smaller ones did, and the result is complete."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names are near `name`, or list them all when none is near."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known: {', '.join(names) or 'none'}"
