"""Finished sweeps as files: what the tables below `reports/` say of them, a trial a row."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.records import DamagedRecordError
from pipeline.unit import digest_of


class Table(NamedTuple):
    """Which file has a row a trial, and the columns that name it."""

    file: str
    names: tuple[str, ...]


TABLES = {  # by the directory below reports/
    "laboratory": Table("verdicts.csv", ("cell", "process", "critics")),
    "cells": Table("cells.csv", ("method", "loss")),
    "ablation": Table("diffusion.csv", ("prediction", "weighting", "schedule")),
    "causal_forcing": Table("inits.csv", ("init",)),
}


class Trial(NamedTuple):
    """One row: its numbers, and the rest as tags."""

    name: str
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class Sweep:
    """One finished sweep, read from `reports/<name>/`; its fingerprint is that of all files there."""

    directory: Path
    name: str
    profile: str
    fingerprint: str
    params: dict[str, Any]
    failed: dict[str, str]  # reasons, by the name of the trial
    trials: tuple[Trial, ...]


def read_sweeps(reports: Path) -> tuple[list[Sweep], list[str]]:
    """Every sweep below `reports`, and a line about each that is damaged."""
    sweeps, damaged = [], []
    for name in TABLES:
        if (reports / name).exists():
            try:
                sweeps.append(read_sweep(reports / name))
            except DamagedRecordError as error:
                damaged.append(str(error))
    return sweeps, damaged


def read_sweep(directory: Path) -> Sweep:
    """Raises DamagedRecordError: run.json or the table is missing, cut short, or lacks an entry."""
    table, path = TABLES[directory.name], directory / "run.json"
    try:
        about = json.loads(path.read_text())
        entries = {name: about[name] for name in ("profile", "failed")}
        params = about.get("params", {})
        path = directory / table.file
        with path.open(newline="") as file:
            trials = tuple(_trial(row, table.names) for row in csv.DictReader(file))
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise DamagedRecordError(f"{path} is damaged: it lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    return Sweep(
        directory, directory.name, **entries, fingerprint=digest_of(directory), params=params, trials=trials
    )


def _trial(row: Mapping[str, str], names: tuple[str, ...]) -> Trial:
    if None in row or None in row.values():
        raise ValueError(f"a row has not as many values as there are columns: {row}")
    metrics, tags = {}, {}
    for column, value in row.items():
        number = None if column in names else _number(value)
        if number is not None:
            metrics[column] = number
        elif value:
            tags[column] = value
    return Trial(" ".join(row[name] for name in names), metrics, tags)


def _number(value: str) -> float | None:
    """None for a text, and for what has no value: an interval of a single seed."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
