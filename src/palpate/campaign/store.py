"""The run directory: opened for one audit, and one version of the components, only."""

import os
import platform
import sys
import uuid
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from palpate import __version__
from palpate.campaign.inventory import inventory
from palpate.campaign.plan import Audit, Plan
from palpate.errors import StoreError
from palpate.record import SCHEMA_VERSION, read_json, write_json

_PACKAGES = ("torch", "numpy", "scipy", "pyarrow", "pydantic", "safetensors", "timm")


def open_run(folder: Path, audit: Audit, plan: Plan, *, command: str) -> None:
    """Create the run directory, or accept one that holds the same audit.

    Raises:
        StoreError: another audit's run, files that are no run, or a place that cannot be written.
    """
    path = folder / "run.json"
    if not path.exists():
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"expected a folder at {folder}, got a file")
        names = {p.name for p in folder.iterdir()} if folder.is_dir() else set[str]()
        if "run.json" not in names and any(not name.startswith(".") for name in names):
            raise StoreError(f"expected an empty folder or a run at {folder}, got other files")
        _create(path, _manifest(audit, plan, command=command))
    found = read_json(path).get("identity")
    if found != plan.identity:
        raise StoreError(
            f"{folder} holds another audit (identity {str(found)[:12]}, this one"
            f" {plan.identity[:12]}); expected the same audit file, data, weights and limit:"
            " choose another --store"
        )


def check_versions(folder: Path) -> None:
    """Refuse to add cells to a run that other versions of the components began.

    Raises:
        StoreError: names both versions of Palpate.
    """
    manifest = read_json(folder / "run.json")
    found = manifest.get("inventory", inventory())
    if found != inventory():
        raise StoreError(
            f"{folder} was begun with other components (inventory {found[:12]}, palpate"
            f" {manifest.get('palpate')}); here {inventory()[:12]}, palpate {__version__}: expected"
            " one installation for all cells of a run; choose another --store"
        )


def _create(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest unless a peer was first."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_json(draft, manifest)
    except StoreError as error:  # the draft's name says nothing to a user
        raise StoreError(str(error).replace(draft.name, path.name)) from None
    try:
        path.hardlink_to(draft)  # fails where the name exists, as a rename does not
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        draft.replace(path)
    draft.unlink(missing_ok=True)


def _manifest(audit: Audit, plan: Plan, *, command: str) -> dict[str, Any]:
    samples = audit.samples
    targets = zip(audit.targets, plan.target_digests, audit.sources, strict=True)
    return {
        "schema_version": SCHEMA_VERSION,
        "palpate": __version__,
        "identity": plan.identity,
        "inventory": inventory(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "config": audit.config.model_dump(mode="json"),
        "dataset": {
            "label": samples.label,
            "digest": plan.data_digest,
            "samples": len(samples),
            "cases": len(set(samples.cases)),
            "task": _task(samples.task),
            "bounds": list(samples.bounds),
            "shape": list(samples.batch([0]).images.shape[1:]),
            "licence": samples.licence,
            "attribution": samples.attribution,
            "warnings": list(samples.warnings),
        },
        "targets": [
            {
                "label": target.name,
                "digest": digest,
                "parameters": sum(p.numel() for p in target.module.parameters()),
                "source": {k: _plain(v) for k, v in source.items() if k != "card"},
                "card": source.get("card"),
            }
            for target, digest, source in targets
        ],
        "plan": [{"key": cell.key, **cell.entry} for cell in plan.cells],
        "probes": [{"key": probe.key, **probe.entry} for probe in plan.probes],
        "not_testable": list(plan.not_testable),
        "environment": {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "device": str(audit.targets[0].device),
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "versions": _versions(),
        },
    }


def _task(task: Any) -> dict[str, Any]:
    kinds = {
        "Classification": "classification",
        "MultiLabel": "multi_label",
        "Segmentation": "segmentation",
        "PromptedSegmentation": "prompted_segmentation",
    }
    return {
        "kind": kinds[type(task).__name__],
        "classes": list(task.classes),
        "positive": getattr(task, "positive", None),
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
