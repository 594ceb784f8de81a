"""Where a result comes from: the code's revision, the entry of its stage in dvc.lock, and when it was made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.records import Record
from pipeline.unit import canonical_json

NONE = "none"


def revision_tags(*revisions: Mapping[str, Any] | None) -> dict[str, str]:
    """The git revision that made a result, or several, and whether tracked files differed; "none" without git."""
    known = [revision for revision in revisions if revision is not None]
    if not known:
        return {"git.revision": NONE, "git.dirty": NONE}
    commits = [str(revision["commit"]) for revision in known]
    tags = {
        "git.revision": ", ".join(commits),
        "git.dirty": str(any(revision["dirty"] for revision in known)).lower(),
    }
    return {**tags, "mlflow.source.git.commit": commits[0]} if len(commits) == 1 else tags


def stage_tags(stage: str, locks: Mapping[str, str], command: str = "") -> dict[str, str]:
    """The DVC stage, its entry in dvc.lock, and the command that makes the result again; "none" without a stage."""
    return {
        "dvc.stage": stage or NONE,
        "dvc.lock": locks.get(stage, NONE),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": command or f"dvc repro {stage}",
    }


def lock_digests(workspace: Path) -> dict[str, str]:
    """sha256 of each stage's own entry in dvc.lock (command, dependencies, parameters, outs), by stage."""
    from ruamel.yaml import YAML

    lock = workspace / "dvc.lock"
    if not lock.exists():
        return {}
    stages = YAML(typ="safe").load(lock.read_text())["stages"]
    return {name: hashlib.sha256(canonical_json(entry).encode()).hexdigest() for name, entry in stages.items()}


def directory_digest(products: Mapping[str, str]) -> str:
    """`pipeline.unit.digest_of` a directory without others in it, from the sha256 of its files."""
    return hashlib.sha256("\n".join(f"{name} {products[name]}" for name in sorted(products)).encode()).hexdigest()


def ended_at(record: Record, units: Path) -> float:
    """Seconds since the epoch at which the unit ended, or, where only its record is left, was recorded."""
    made = next(units.glob(f"*/{record.fingerprint}/metrics.json"), None)
    return (made or record.directory / "record.json").stat().st_mtime
