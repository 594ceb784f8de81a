"""Where a result comes from: the code's revision, the entry of its stage in dvc.lock, and when it was made."""

import hashlib
import subprocess
from pathlib import Path

from pipeline.records import Record
from pipeline.unit import PROJECT, canonical_json

RESULTS = (":!reports", ":!dvc.lock")  # what a run of the pipeline itself changes does not make the code dirty


def source_tags(project: Path = PROJECT) -> dict[str, str]:
    """The git revision and whether tracked files differ from it; "none" outside a repository of its own."""
    none = {"git.revision": "none", "git.dirty": "none"}
    if _git(project, "rev-parse", "--show-toplevel") != str(project):
        return none
    revision = _git(project, "rev-parse", "HEAD")
    changes = _git(project, "status", "--porcelain", "--untracked-files=no", "--", ".", *RESULTS)
    if revision is None or changes is None:
        return none
    return {"git.revision": revision, "git.dirty": str(bool(changes)).lower()}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


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
    metrics = units / record.stage / record.fingerprint / "metrics.json"
    return (metrics if metrics.exists() else record.directory / "record.json").stat().st_mtime
