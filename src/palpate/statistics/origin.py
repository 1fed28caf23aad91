"""Where a run's numbers come from: what any table that leaves the run directory must carry."""

from typing import Any

from palpate.record import Record


def origin(record: Record) -> dict[str, Any]:
    """Folder, versions, digests of data and models, and how much of the plan is finished."""
    manifest = record.manifest
    return {
        "folder": str(record.folder),
        "palpate": manifest["palpate"],
        "identity": manifest["identity"],
        "created": manifest["created"],
        "dataset": manifest["dataset"]["label"],
        "data_digest": manifest["dataset"]["digest"],
        "targets": {t["label"]: t["digest"] for t in manifest["targets"]},
        "planned": len(manifest["plan"]),
        "finished": sum(cell.status == "ok" for cell in record.cells),
    }
