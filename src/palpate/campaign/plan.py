"""An audit becomes cells, each named by the hash of all that determines its result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from palpate import config as configuration
from palpate import registry
from palpate.campaign._keys import CLEAN, Asked, asked_of, cell_key, defence_identity, sha
from palpate.config import NO_DEFENCE, AuditConfig, Spec
from palpate.datasets.base import Samples
from palpate.errors import CapabilityError
from palpate.filing import check_storage
from palpate.perturbation import Perturbation
from palpate.saliency import check_saliency
from palpate.storage import Storage
from palpate.targets.base import Target

PROBE_VERSION: Final = 1  # raised when a probe would give other numbers

Placed = tuple[str, Perturbation]
"""A perturbation with the name of its family."""


@dataclass(frozen=True)
class Audit:
    """Everything an audit needs, built.

    Attributes:
        config: what was asked, for the manifest.
        samples: the data.
        targets: bare models.
        sources: per target, what is known of its origin (spec, card).
        perturbations: components, sweeps expanded.
        base: folder that relative paths of defences start from.
        limit: samples kept.
        again: whether `resolve` on config, base and limit gives the same audit in another process;
            not so for models and data handed in from Python.
    """

    config: AuditConfig
    samples: Samples
    targets: tuple[Target, ...]
    sources: tuple[dict[str, Any], ...]
    perturbations: tuple[Placed, ...]
    base: Path | None = None
    limit: int | None = None
    again: bool = False


@dataclass(frozen=True)
class Cell:
    """One combination of target, defence and perturbation on the dataset.

    Attributes:
        key: SHA-256 of the canonical JSON of all that determines the result, and of nothing else.
        target: position in `Audit.targets`.
        defence: spec; `{"name": "none"}` for the bare target.
        perturbation: component, or None for the clean cell.
        entry: plain words about the cell, as the manifest and the record carry them.
    """

    key: str
    target: int
    defence: Spec
    perturbation: Perturbation | None
    entry: dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A short look at one target behind one defence, for the audit's checks on itself.

    Attributes:
        key: SHA-256 of the canonical JSON of all that determines the result.
        target: position in `Audit.targets`.
        defence: spec; `{"name": "none"}` for the bare target.
        entry: target, defence and dataset in words, as the manifest carries them.
    """

    key: str
    target: int
    defence: Spec
    entry: dict[str, Any]

    @property
    def model(self) -> str:
        """Label of the target, with its defence."""
        target, defence = self.entry["target"], self.entry["defence"]
        return target if defence == "none" else f"{target} + {defence}"


@dataclass(frozen=True)
class Plan:
    """All cells in running order.

    Attributes:
        cells: grouped by target, the clean cell first.
        probes: one per target and defence.
        not_testable: what was asked but cannot run, with the reason.
        identity: hash that two runs of the same audit share.
        data_digest: of the samples.
        target_digests: per target.
    """

    cells: tuple[Cell, ...]
    probes: tuple[Probe, ...]
    not_testable: tuple[dict[str, Any], ...]
    identity: str
    data_digest: str
    target_digests: tuple[str, ...]


def resolve(config: AuditConfig, base: Path, limit: int | None = None) -> Audit:
    """Load the data and the models that an audit file names.

    Args:
        config: a valid configuration.
        base: folder of the audit file.
        limit: keep the first so many samples.

    Raises:
        UsageError: data or weights missing, damaged or not fitting.
    """
    samples = configuration.build("datasets", config.dataset, base).load(limit)
    channels = samples.batch([0]).images.shape[1]
    targets: list[Target] = []
    sources: list[dict[str, Any]] = []
    for spec in _labelled(config.targets):
        source = configuration.build("targets", spec, base)
        targets.append(source.load(task=samples.task, channels=channels, bounds=samples.bounds))
        sources.append({**spec, "card": _card(source.weights)})
    return Audit(
        config=config,
        samples=samples,
        targets=tuple(targets),
        sources=tuple(sources),
        perturbations=tuple(expand(config.perturbations, base)),
        base=base,
        limit=limit,
        again=True,
    )


def expand(specs: Sequence[Spec], base: Path | None = None) -> list[Placed]:
    """Build every perturbation, sweeps expanded, each setting once; paths start from `base`."""
    families = [configuration.perturbation_family(spec["name"]) for spec in specs]
    return each_once(
        (family, configuration.build(family, one, base))
        for family, spec in zip(families, specs, strict=True)
        for one in configuration.sweep(family, spec)
    )


def each_once(placed: Iterable[Placed]) -> list[Placed]:
    """The same without repetitions: one cell counted twice would weaken every adjusted p-value."""
    distinct: dict[str, Placed] = {}
    for family, component in placed:
        distinct.setdefault(registry.canonical([family, repr(component)]), (family, component))
    return list(distinct.values())


def make_plan(audit: Audit) -> Plan:
    """Name every cell, and refuse what cannot run before compute is spent.

    Raises:
        UsageError: bad pixels, a budget beyond the bounds, a model not fit to be audited, images
            that a file of the asked format cannot hold.
        CapabilityError: no perturbation fits any target, so that nothing would be tested.
    """
    if audit.config.saliency is not None:
        check_saliency()
    data_digest = audit.samples.digest()
    first = audit.samples.batch(range(min(len(audit.samples), audit.config.batch_size)))
    cells: list[Cell] = []
    refused: list[dict[str, Any]] = []
    digests: list[str] = []
    check_storage(Storage.parse(audit.config.storage), first.images)
    for _, component in audit.perturbations:
        component.check_samples(audit.samples)
    for index, target in enumerate(audit.targets):
        target.preflight(first)
        digests.append(target.digest())
        asked = [asked_of(*placed, target, first) for placed in audit.perturbations]
        for defence in audit.config.defences:
            protected = defence_identity(defence, audit.base)
            for one in (CLEAN, *asked):
                entry = _entry(audit, index, defence, one)
                if one.reason:
                    refused.append({**entry, "reason": one.reason})
                else:
                    key = cell_key(audit.config, [digests[-1], data_digest], protected, one)
                    cells.append(Cell(key, index, defence, one.component, entry))
    _check_some(cells, refused)
    shown = audit.config.model_dump(include={"metrics", "statistics", "memory_errors"}, mode="json")
    identity = sha([*([c.key, c.entry["target"], c.entry["defence"]] for c in cells), shown])
    probes = _probes(audit, [c for c in cells if c.perturbation is None])
    return Plan(tuple(cells), probes, tuple(refused), identity, data_digest, tuple(digests))


def _check_some(cells: Sequence[Cell], refused: Sequence[dict[str, Any]]) -> None:
    if refused and all(cell.perturbation is None for cell in cells):
        first, *others = dict.fromkeys(row["reason"] for row in refused)
        more = f"; and {len(others)} more" if others else ""
        raise CapabilityError(
            f"perturbations: expected at least one that fits a target, got none: {first}{more}"
        )


def _probes(audit: Audit, clean: Sequence[Cell]) -> tuple[Probe, ...]:
    """One per clean cell; it may attack from any other model, so it hangs on all of them."""
    attacks = [registry.describe(c) for family, c in audit.perturbations if family == "attacks"]
    shared = [PROBE_VERSION, [c.key for c in clean], attacks]
    words = ("target", "defence", "dataset")
    return tuple(
        Probe(sha([c.key, shared]), c.target, c.defence, {w: c.entry[w] for w in words})
        for c in clean
    )


def protect(audit: Audit, target: Target, defence: Spec) -> Target:
    """The target behind its defence."""
    if defence == NO_DEFENCE:
        return target
    defended = configuration.build("defences", defence, audit.base).protect(target)
    return replace(defended, bare=target)


def _entry(audit: Audit, index: int, defence: Spec, asked: Asked) -> dict[str, Any]:
    return {
        "target": audit.targets[index].name,
        "defence": _defence_label(defence, audit.config.defences),
        "dataset": audit.samples.label,
        "family": asked.family,
        "perturbation": asked.name,
        "setting": {} if asked.component is None else registry.describe(asked.component),
    }


def _labelled(specs: Sequence[Spec]) -> list[Spec]:
    """Give targets that would share a label in the tables a number each."""
    taken: set[str] = set()
    labelled: list[Spec] = []
    for spec in specs:
        source = configuration.build("targets", spec)
        label = wanted = source.label or source.default_label()
        number = 1
        while label in taken:
            number += 1
            label = f"{wanted} {number}"
        taken.add(label)
        labelled.append({**spec, "label": label})
    return labelled


def _defence_label(defence: Spec, others: Sequence[Spec]) -> str:
    """The name, with the parameters where the audit has the component more than once."""
    if sum(other["name"] == defence["name"] for other in others) == 1:
        return defence["name"]
    settings = ", ".join(f"{k} {v}" for k, v in defence.items() if k != "name")
    return f"{defence['name']} ({settings or 'default'})"


def _card(weights: Path | None) -> dict[str, Any] | None:
    card = None if weights is None else weights.with_suffix(".json")
    if card is None or not card.is_file():
        return None
    from palpate.record import read_json

    return read_json(card)
