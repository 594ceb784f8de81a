"""Finished and running units as files: what `reports/` and the work root say of them."""

import csv
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, float]


class DamagedRecordError(ValueError):
    """A record that cannot be read; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Record:
    """One finished unit, read from `reports/<stage>[/<item>]/`."""

    directory: Path
    stage: str
    item: str  # "" where the stage has but one
    fingerprint: str
    work: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, Any]
    products: dict[str, str]
    profile: str
    seconds: float
    curve: tuple[Row, ...]
    revision: dict[str, Any] | None  # of the code, when the unit started: commit, dirty; None without git

    @property
    def name(self) -> str:
        """The name of its DVC stage."""
        return "@".join(filter(None, (self.stage, self.item)))


@dataclass(frozen=True)
class RunningUnit:
    """One unit at work, read from `<work root>/<stage>/<fingerprint>/`."""

    directory: Path
    stage: str
    fingerprint: str
    work: dict[str, Any]
    curve: tuple[Row, ...]


def read_records(reports: Path) -> tuple[list[Record], list[str]]:
    """Every record below `reports`, and a line about each that is damaged."""
    records, damaged = [], []
    for path in sorted(reports.rglob("record.json")):
        try:
            records.append(read_record(path))
        except DamagedRecordError as error:
            damaged.append(str(error))
    return records, damaged


def read_record(path: Path) -> Record:
    """The unit that a record.json and, where it has a curve, the curve.csv beside it describe.

    Raises:
        DamagedRecordError: either is missing, cut short, or lacks an entry.
    """
    try:
        content = json.loads(path.read_text())
        names = ("stage", "item", "fingerprint", "work", "inputs", "metrics", "products", "profile")
        entries = {name: content[name] for name in names}
        seconds = float(content["timing"]["seconds"])
        revision = content.get("revision")
        if revision is not None:
            revision = {"commit": str(revision["commit"]), "dirty": bool(revision["dirty"])}
        has_curve = content.get("has_curve", path.with_name("curve.csv").exists())
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise DamagedRecordError(f"{path} is damaged: it lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    curve = read_curve(path.with_name("curve.csv")) if has_curve else ()
    return Record(path.parent, **entries, seconds=seconds, curve=curve, revision=revision)


def read_curve(path: Path) -> tuple[Row, ...]:
    """The rows of a curve.csv: a column `step`, and a column for each metric, empty where it has no value.

    Raises:
        DamagedRecordError: the file is missing, or a row is not whole.
    """
    try:
        with path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
            if rows and "step" not in header:
                raise ValueError("it has no column step")
            curve = [dict(zip(header, row, strict=True)) for row in rows]
            return tuple({name: float(value) for name, value in row.items() if value} for row in curve)
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error


def running_units(units: Path) -> list[RunningUnit]:
    """The units below the work root that a process is at work on now."""
    found = []
    for path in sorted(units.glob("*/*/unit.json")):
        directory = path.parent
        if (directory / "metrics.json").exists() or not _is_locked(directory / ".lock"):
            continue
        unit = json.loads(path.read_text())
        curve = tuple(_whole_rows(directory / "curve.jsonl"))
        found.append(RunningUnit(directory, unit["stage"], unit["fingerprint"], unit["work"], curve))
    return found


def _is_locked(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _whole_rows(path: Path) -> Iterator[Row]:
    """The rows of a curve that is being written; the last may be cut short."""
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield {name: float(value) for name, value in json.loads(line).items()}
