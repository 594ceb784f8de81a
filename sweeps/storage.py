"""Units and inputs at an address that all nodes reach, where they share no folder: any that fsspec knows."""

import hashlib
import shutil
import tarfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pipeline.interfaces import OnProgress, Progress, no_progress
from pipeline.unit import CHECKPOINTS, Work, canonical_json, describe, digest_of, run_unit, single_writer, work_root
from sweeps.parallel import one_line

FINISHED = "finished"  # the last state of a unit; those before are called as their newest checkpoint
FETCHED, CONTENT = "fetched.tmp", "content"
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not before Python 3.11.4


@dataclass(frozen=True)
class Storage:
    """url None: nothing is moved, the folder of units (FORCING_GRID_WORK) is one that all nodes reach.

    A unit's state is one archive, STAGE/FINGERPRINT/STATE.tar; it gets its name when it is there whole, so a kill
    at any moment leaves the state before. An input is inputs/DIGEST.tar. No lock spans nodes: one driver runs a
    sweep, and it gives a unit to one trial. Two that make it all the same replace equal states.
    """

    url: str | None = None
    send_every_s: float = 60.0  # between two states of a unit that runs

    @classmethod
    def open(cls, url: str | None) -> "Storage":
        """In the driver, before anything starts.

        Raises:
            ValueError: nothing can be written there, read back and removed.
        """
        if url is not None:
            try:
                _try(url)
            except Exception as error:  # every kind of storage has errors of its own
                raise ValueError(
                    "sweep.storage must be an address where files can be written, read back and removed, got "
                    f"{url}: {one_line(error)}"
                ) from error
        return cls(url)

    def share(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """In the driver: send inputs that are not there yet; by name, what `inputs` knows them by."""
        if self.url is None:
            return {name: str(path.absolute()) for name, path in paths.items()}
        files, root = url_to_fs(self.url)
        digests = {name: digest_of(path) for name, path in paths.items()}
        for name, digest in digests.items():
            target = f"{root}/inputs/{digest}.tar"
            if not files.exists(target):
                _send(files, paths[name], target, within=CONTENT)
        return digests

    def inputs(self, shared: Mapping[str, str]) -> dict[str, Path]:
        """In a worker: where the inputs are on its node, fetched by the first that asks."""
        if self.url is None:
            return {name: Path(path) for name, path in shared.items()}
        files, root = url_to_fs(self.url)
        found = {}
        for name, digest in shared.items():
            directory = work_root() / "inputs" / digest
            with single_writer(directory):
                if not (directory / CONTENT).exists():
                    (_fetch(files, f"{root}/inputs/{digest}.tar", directory) / CONTENT).rename(directory / CONTENT)
            found[name] = directory / CONTENT
        return found

    def run_unit(
        self, stage: str, work: Work, inputs: Mapping[str, Path], *, on_progress: OnProgress = no_progress
    ) -> Path:
        """As `pipeline.unit.run_unit`, from the newest state that this node or the storage has."""
        if self.url is None:
            return run_unit(stage, work, inputs, on_progress=on_progress)
        files, root = url_to_fs(self.url)
        directory = _directory_of(stage, work, inputs)
        states = f"{root}/{stage}/{directory.name}"
        sent = _take_newer(files, states, directory)
        last = time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal sent, last
            state = _newest_checkpoint(directory)
            if state > sent and time.monotonic() - last >= self.send_every_s:
                _send(files, directory, f"{states}/{state}.tar")
                sent, last = state, time.monotonic()
            on_progress(progress)

        run_unit(stage, work, inputs, on_progress=tell)
        if FINISHED not in _states(files, states):
            _send(files, directory, f"{states}/{FINISHED}.tar")
        for path in files.ls(states, detail=False):  # states before, and what kills have left of sending
            if not path.endswith(f"/{FINISHED}.tar"):
                files.rm_file(path)
        return directory


def _try(url: str) -> None:
    files, root = url_to_fs(url)
    probe, written = f"{root}/probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
    files.makedirs(root, exist_ok=True)
    files.pipe_file(probe, written)
    if files.cat_file(probe) != written:
        raise OSError("what is read is not what was written")
    files.rm_file(probe)


def _directory_of(stage: str, work: Work, inputs: Mapping[str, Path]) -> Path:
    """Where `run_unit` makes this unit."""
    description = canonical_json(describe(stage, work, inputs))
    return work_root() / stage / hashlib.sha256(description.encode()).hexdigest()[:24]


def _newest_checkpoint(directory: Path) -> str:
    """Its name; empty where there is none. Names are steps of equally many digits."""
    root = directory / CHECKPOINTS
    return max((path.name for path in root.glob("*") if not path.suffix), default="")


def _states(files: Any, states: str) -> list[str]:
    """The names of the whole states of a unit, the newest last: letters come after digits."""
    files.invalidate_cache()  # another node may have sent one since the last look
    paths = files.ls(states, detail=False) if files.exists(states) else []
    return sorted(Path(path).stem for path in paths if path.endswith(".tar"))


def _take_newer(files: Any, states: str, directory: Path) -> str:
    """Put the storage's state in the place of an older one of this node; the name of the storage's."""
    there = max(_states(files, states), default="")
    with single_writer(directory):
        if there <= _newest_checkpoint(directory) or (directory / "metrics.json").exists():
            return there
        fetched = _fetch(files, f"{states}/{there}.tar", directory)
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)  # first and last: a kill between fetches again
        for path in list(directory.iterdir()):
            if path.is_dir() and path != fetched:
                shutil.rmtree(path)
            elif path.is_file() and path.name != ".lock":
                path.unlink()
        late = (CHECKPOINTS, "metrics.json")
        for path in sorted(fetched.iterdir(), key=lambda path: path.name in late):
            path.rename(directory / path.name)
        fetched.rmdir()
    return there


def _send(files: Any, source: Path, target: str, *, within: str = ".") -> None:
    """A file or directory as an archive, which has the name of the target when it is there whole."""
    temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    files.makedirs(target.rpartition("/")[0], exist_ok=True)
    with files.open(temporary, "wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
        archive.add(source, within, filter=lambda member: None if _is_passing(member.name) else member)
    files.mv(temporary, target)


def _is_passing(name: str) -> bool:
    return name.endswith((".tmp", "/.lock"))


def _fetch(files: Any, source: str, directory: Path) -> Path:
    """The archive's content, in a directory inside of this one."""
    fetched = directory / FETCHED
    shutil.rmtree(fetched, ignore_errors=True)
    with files.open(source, "rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
        archive.extractall(fetched, **SAFELY)
    return fetched
