"""Where a result comes from: the code's revision, the entry of its stage in dvc.lock, and when it was made."""

import hashlib
from pathlib import Path

from pipeline.records import Record
from pipeline.unit import canonical_json


def source_tags(record: Record) -> dict[str, str]:
    """The git revision that made the unit, and whether tracked files differed from it; "none" without git."""
    if record.revision is None:
        return {"git.revision": "none", "git.dirty": "none"}
    return {"git.revision": record.revision["commit"], "git.dirty": str(record.revision["dirty"]).lower()}


def lock_digests(workspace: Path) -> dict[str, str]:
    """sha256 of each stage's own entry in dvc.lock (command, dependencies, parameters, outs), by stage."""
    from ruamel.yaml import YAML

    lock = workspace / "dvc.lock"
    if not lock.exists():
        return {}
    stages = YAML(typ="safe").load(lock.read_text())["stages"]
    return {name: hashlib.sha256(canonical_json(entry).encode()).hexdigest() for name, entry in stages.items()}


def ended_at(record: Record, units: Path) -> float:
    """Seconds since the epoch at which the unit ended, or, where only its record is left, was recorded."""
    made = next(units.glob(f"*/{record.fingerprint}/metrics.json"), None)
    return (made or record.directory / "record.json").stat().st_mtime
