"""One unit of work: the only way in which anything is made, trained or evaluated.

`run_unit` keys the work by a fingerprint of its parameters, of what it reads and of the code that it runs, so
that a finished unit is returned at once, an interrupted one goes on, and a changed one never meets an old result.
"""

import ast
import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pipeline.interfaces import OnProgress, Progress, no_progress

PROJECT = Path(__file__).resolve().parents[1]
VERSIONED = ("torch", "numpy", "scikit-learn", "pillow")  # libraries whose version decides numbers and pictures
PRODUCTS = ("out", "show")  # of a unit: what others read, what people look at
CHECKPOINTS = "checkpoints"  # where a unit keeps what it needs to resume; gone once it is finished
RESULTS = (":!reports", ":!dvc.lock")  # what a run of the pipeline itself changes does not make the code dirty
FLUSH_S = 2.0  # seconds between two writes of the running time
LOG = logging.getLogger(__name__)

Metrics = dict[str, Any]


@runtime_checkable
class Work(Protocol):
    """A frozen dataclass whose fields are everything that the result depends on, beside its inputs and its code.

    `run` writes its products below `directory / "out"` and what people look at (pictures, tables) below
    `directory / "show"`, the same bytes whenever it runs; it keeps what it needs to resume elsewhere in
    `directory`, yields its progress, and returns its metrics: no times among them.
    """

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]: ...


def work_root() -> Path:
    """Where units live: FORCING_GRID_WORK, or work/ beside the library."""
    return Path(os.environ.get("FORCING_GRID_WORK", PROJECT / "work"))


def run_unit(stage: str, work: Work, inputs: Mapping[str, Path], *, on_progress: OnProgress = no_progress) -> Path:
    """The directory of the finished unit: found whole, resumed, or made from the start.

    It holds `out/` (products), `unit.json` (what the fingerprint was made of, and the git revision at the last
    start), `curve.jsonl` (a line a report), `timing.json` (seconds, summed over interruptions), `products.json`
    (sha256 of every product) and, written last, `metrics.json`. A finished unit whose products are no longer those
    of `products.json` is made anew.

    Raises:
        FileNotFoundError: an input is missing.
    """
    description = describe(stage, work, inputs)
    fingerprint = hashlib.sha256(canonical_json(description).encode()).hexdigest()[:24]
    directory = work_root() / stage / fingerprint
    with single_writer(directory):
        if not _is_finished(directory):
            origin = {"fingerprint": fingerprint, "revision": revision_of(PROJECT)}
            write_json(directory / "unit.json", {**origin, **description})
            metrics = _follow(work.run(directory, inputs), directory, on_progress)
            write_json(directory / "products.json", _products_of(directory, sync=True))
            write_json(directory / "metrics.json", metrics)
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)  # only now: a kill before here resumes from them
    return directory


def _is_finished(directory: Path) -> bool:
    """Whether the unit is finished and its products are what it made; the rest of a damaged one is removed."""
    if not (directory / "metrics.json").exists():
        return False
    try:
        made = json.loads((directory / "products.json").read_text())
    except (FileNotFoundError, ValueError):
        changed = ["products.json"]
    else:
        changed = sorted(name for name, _ in made.items() ^ _products_of(directory).items())
    if not changed:
        return True
    LOG.warning(
        "%s is not what its unit made (damaged, edited or lost): the unit is made anew", directory / changed[0]
    )
    (directory / "metrics.json").unlink()
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (".lock", "unit.json"):
            path.unlink()
    return False


def _products_of(directory: Path, *, sync: bool = False) -> dict[str, str]:
    """sha256 of every file below out/ and show/; with `sync`, of what is surely on the disk."""
    digests = {}
    for path in sorted(path for part in PRODUCTS for path in (directory / part).rglob("*") if path.is_file()):
        if sync:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        digests[path.relative_to(directory).as_posix()] = digest_of(path)
    return digests


def _follow(steps: Generator[Progress, None, Metrics], directory: Path, on_progress: OnProgress) -> Metrics:
    """Run to the end, keeping the curve (without the rows that a resumed run repeats) and the time."""
    timing_path, curve_path = directory / "timing.json", directory / "curve.jsonl"
    before = json.loads(timing_path.read_text())["seconds"] if timing_path.exists() else 0.0
    start = written = time.monotonic()
    curve = None
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value
            if progress.metrics:
                if curve is None:
                    keep_rows_before(curve_path, progress.step)
                    curve = curve_path.open("a")
                curve.write(json.dumps({"step": progress.step, **progress.metrics}) + "\n")
                curve.flush()
            if time.monotonic() - written > FLUSH_S:
                written = time.monotonic()
                write_json(timing_path, {"seconds": round(before + written - start, 3)})
            on_progress(progress)
    finally:
        if curve is not None:
            curve.close()
        with contextlib.suppress(OSError):  # a full disk must not hide the error that is on its way
            write_json(timing_path, {"seconds": round(before + time.monotonic() - start, 3)})


def keep_rows_before(curve_path: Path, step: int) -> None:
    """Drop the rows of a curve from `step` on, and a last line that was cut short."""
    if not curve_path.exists():
        return
    kept = []
    for line in curve_path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["step"] < step:
                kept.append(line + "\n")
    replace_file(curve_path, "".join(kept))


def describe(stage: str, work: Work, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that decides the result: parameters, checksums of inputs, sources of modules, library versions."""
    return {
        "stage": stage,
        "work": as_plain(work),
        "inputs": {name: digest_of(path) for name, path in sorted(inputs.items())},
        "sources": sources_of({f"{type(part).__module__}" for part in _dataclasses_in(work)}),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


def revision_of(project: Path) -> dict[str, Any] | None:
    """The git commit, and whether tracked files differ from it; None outside a repository of the project's own."""
    if _git(project, "rev-parse", "--show-toplevel") != str(project):
        return None
    commit = _git(project, "rev-parse", "HEAD")
    changes = _git(project, "status", "--porcelain", "--untracked-files=no", "--", ".", *RESULTS)
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def as_plain(value: Any) -> Any:
    """A dataclass as JSON data, every one tagged with its class so that equal fields of two classes differ."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a unit's parameters must be plain values or dataclasses, got {type(value).__name__}")


def _dataclasses_in(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from _dataclasses_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _dataclasses_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _dataclasses_in(item)


def sources_of(modules: set[str]) -> dict[str, str]:
    """sha256 of the source of every module of the project that these import, directly or not.

    A package's registry (`losses/__init__.py`) counts only where it is imported by name, so that a new entry on
    an axis leaves the results of the others valid.
    """
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop()
        path = _source_path(name)
        if name in found or path is None:
            continue
        source = path.read_bytes()
        found[name] = hashlib.sha256(source).hexdigest()
        waiting.extend(_imports(source))
    return dict(sorted(found.items()))


def _source_path(module: str) -> Path | None:
    """The file of a module of the project; None for libraries and for names inside a module."""
    base = PROJECT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.exists()), None)


def _imports(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            are_modules = [name for name in submodules if _source_path(name)]
            yield from are_modules
            if len(are_modules) < len(submodules):
                yield node.module


def digest_of(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files below a directory."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise FileNotFoundError(f"an input of a unit must exist: {path}")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {digest_of(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@contextlib.contextmanager
def single_writer(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; a second writer waits for the first, then finds its result."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("waiting for another writer of %s", directory)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    replace_file(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def replace_file(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
