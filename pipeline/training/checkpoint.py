"""Checkpoints that survive a kill, a full disk and a damaged file.

A checkpoint is one directory, `checkpoints/<step>/`: tensors.safetensors, state.json and checksums.json. It is
written under a temporary name, synced, and renamed; the one before is kept until the next is whole. No pickle.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.unit import CHECKPOINTS, digest_of

KEEP = 2
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on after `step`."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(directory: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `directory/checkpoints/<step>` whole or not at all, then drop all but the last two.

    Raises:
        OSError: the disk is full or read-only; the checkpoints that were there are untouched.
    """
    root = directory / CHECKPOINTS
    final, temporary = root / f"{step:09d}", root / f"{step:09d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary / "tensors.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step, **state}, sort_keys=True))
        names = ("tensors.safetensors", "state.json")
        checksums = {name: digest_of(temporary / name) for name in names}
        (temporary / "checksums.json").write_text(json.dumps(checksums))
        for name in (*names, "checksums.json"):
            _sync(temporary / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():  # damaged, or it would have been resumed from
        shutil.rmtree(final)
    temporary.rename(final)
    _sync(root)
    for old in _steps(root)[:-KEEP]:
        shutil.rmtree(old)


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a unit; None when there is none. A damaged one is named and passed over."""
    for path in reversed(_steps(directory / CHECKPOINTS)):
        damage = _damage(path)
        if damage is None:
            state = json.loads((path / "state.json").read_text())
            return Checkpoint(state.pop("step"), load_file(path / "tensors.safetensors"), state)
        LOG.warning("checkpoint %s is damaged (%s); using the one before", path, damage)
    return None


def _steps(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.name.isdigit()) if root.exists() else []


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file has its checksum."""
    try:
        checksums = json.loads((path / "checksums.json").read_text())
        return next(
            (f"checksum of {name}" for name, digest in checksums.items() if digest_of(path / name) != digest), None
        )
    except (OSError, ValueError) as error:
        return str(error)


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
