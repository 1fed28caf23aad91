"""What determines the result of a cell, and the hash of it that names the cell."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from palpate import config as configuration
from palpate import registry
from palpate.config import NO_DEFENCE, AuditConfig, Spec
from palpate.errors import CapabilityError
from palpate.perturbation import Perturbation
from palpate.record import SCHEMA_VERSION
from palpate.targets._checkpoint import contents
from palpate.targets.base import Target
from palpate.types import Batch


class Asked(NamedTuple):
    """A perturbation on one target.

    Attributes:
        family: of the component.
        component: what is asked; None for the clean cell.
        identity: what determines its result there, as plain data.
        reason: why it cannot run there; empty where it can.
    """

    family: str
    component: Perturbation | None
    identity: dict[str, Any]
    reason: str = ""

    @property
    def name(self) -> str:
        """Of the component; "none" for the clean cell."""
        return "none" if self.component is None else registry.name_of(self.component)


CLEAN: Final = Asked("none", None, {})


def asked_of(family: str, component: Perturbation, target: Target, batch: Batch) -> Asked:
    """Ask a perturbation whether it can run on a bare target, and what its result hangs on.

    Raises:
        UsageError: a budget beyond the bounds; files or data missing or damaged.
    """
    try:
        component.check(target)
        return Asked(family, component, component.identity(target, batch))
    except CapabilityError as error:
        return Asked(family, component, {}, str(error))


def defence_identity(defence: Spec, base: Path | None) -> Spec:
    """The spec, with what it stands for (the files of an ensemble's members), and its version.

    Raises:
        CheckpointError: no such file.
    """
    if defence == NO_DEFENCE:
        return defence
    component = configuration.build("defences", defence, base)
    # the first version goes without saying, as it did in older records
    later = {"version": component.version} if component.version > 1 else {}
    return {**defence, **contents(component), **later}


def cell_key(config: AuditConfig, digests: Sequence[str], defence: Spec, asked: Asked) -> str:
    """SHA-256 of the canonical JSON of all that determines a cell's result.

    Args:
        config: of the audit.
        digests: of the bare target and of the data.
        defence: from `defence_identity`.
        asked: from `asked_of`, or `CLEAN`.
    """
    determines = {
        "schema": SCHEMA_VERSION,
        "digests": list(digests),
        "defence": defence,
        "perturbation": asked.name,
        "version": 0 if asked.component is None else asked.component.version,
        "setting": asked.identity,
        "seed": config.seed,
        "storage": config.storage,
        "gallery": config.gallery,
        "shard": [0, 1],
    }
    if config.saliency is not None:
        determines["saliency"] = config.saliency.model_dump()
    return sha(determines)


def sha(data: Any) -> str:
    """SHA-256 of the canonical JSON of plain data."""
    return hashlib.sha256(registry.canonical(data).encode()).hexdigest()
