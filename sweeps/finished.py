"""Which tasks are finished already: found without Ray, and without hashing what they share again for each.

The fingerprint is that of `run_unit`; inputs, sources and versions, the same for many tasks, are looked up once.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.unit import VERSIONED, Work, as_plain, canonical_json, digest_of, sources_of, work_root
from sweeps.trial import Result, Task, inputs_of_evaluation, inputs_of_training, read_result

digest_once = cache(digest_of)


def finished(task: Task) -> Result | None:
    """What its units hold, where all of them are finished."""
    first = first_unit(task)
    if not is_finished(first):
        return None
    if task.train is None:
        return read_result({"evaluate": first})
    last = directory_of("evaluate", task.evaluate, inputs_of_evaluation(task.inputs, first / "out"))
    return read_result({"train": first, "evaluate": last}) if is_finished(last) else None


def first_unit(task: Task) -> Path:
    """Where the first of its units is kept: of two tasks that share it, all units are the same."""
    if task.train is not None:
        return directory_of("cell", task.placed_train, inputs_of_training(task.inputs))
    return directory_of("evaluate", task.evaluate, inputs_of_evaluation(task.inputs, task.inputs["init"]))


def directory_of(stage: str, work: Work, inputs: Mapping[str, Path]) -> Path:
    """Where `run_unit` keeps this unit."""
    plain = as_plain(work)
    description = {
        "stage": stage,
        "work": plain,
        "inputs": {name: digest_once(path) for name, path in sorted(inputs.items())},
        "sources": sources_once(frozenset(modules_in(plain))),
        "versions": versions(),
    }
    fingerprint = hashlib.sha256(canonical_json(description).encode()).hexdigest()[:24]
    return work_root() / stage / fingerprint


def is_finished(directory: Path) -> bool:
    """Whether its last file is there, and all of its products; whether they are still the same, `run_unit` sees."""
    products = directory / "products.json"
    if not (directory / "metrics.json").exists() or not products.exists():
        return False
    return all((directory / name).exists() for name in json.loads(products.read_text()))


def modules_in(plain: Any) -> Iterator[str]:
    """Of the classes whose instances these data were."""
    if isinstance(plain, dict):
        if "type" in plain:
            yield plain["type"].rsplit(".", 1)[0]
        for value in plain.values():
            yield from modules_in(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from modules_in(value)


@cache
def sources_once(modules: frozenset[str]) -> dict[str, str]:
    """Of all that these modules import."""
    return sources_of(set(modules))


@cache
def versions() -> dict[str, str]:
    """Of the libraries that decide results."""
    return {name: importlib.metadata.version(name) for name in VERSIONED}
