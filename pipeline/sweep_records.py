"""Sweeps as files: what the tables below `reports/` say of them, a trial a row."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.mlflow_values import cell_names
from pipeline.records import DamagedRecordError, Row
from pipeline.unit import digest_of

FAILED = "failed"
COMPARED = ("default", "tuned")  # phases, of which the last speaks for the sweep
SEARCH = "tuning"  # the phase whose trials share cell and seed


@dataclass(frozen=True)
class Table:
    """Which file has a row a trial, the columns that name it, and what else there is to be told.

    params: columns that were set, not measured. words: numbers that are told as words, as a seed is. curves: a file
    with the rows of all trainings, told apart by columns of trials. means: a file with a row a cell and metric.
    command: of a sweep that is no stage of DVC.
    """

    file: str
    names: tuple[str, ...]
    command: str = ""
    params: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    curves: str = ""
    told_apart_by: tuple[str, ...] = ()
    means: str = ""


TABLES = {  # by the directory below reports/
    "laboratory": Table("verdicts.csv", ("cell", "process", "critics")),
    "cells": Table("cells.csv", ("method", "loss"), "python3 -m pipeline every-cell"),
    "ablation": Table(
        "diffusion.csv", ("prediction", "weighting", "schedule"), "python3 -m pipeline ablate-diffusion"
    ),
    "causal_forcing": Table("inits.csv", ("init",), "python3 -m pipeline causal-forcing"),
    "grid": Table(
        "trials.csv", ("method", "loss", "phase", "seed"),
        params=("learning_rate", "critic_rate_factor", "critic_updates_a_step", "num_steps"),
        words=("train_fingerprint", "evaluate_fingerprint"), curves="curves.csv",
        told_apart_by=("method", "loss", "phase", "seed"), means="cells.csv",
    ),
}  # fmt: skip

FIGURES = {  # of the report, by the directory below reports/
    "grid": ("sweep_*", "matrix.*"),
    "laboratory": ("laboratory_*",),
}


@dataclass(frozen=True)
class Trial:
    """One row: its numbers, what was set, and the rest as tags; its curve, where the sweep has one."""

    name: str
    metrics: dict[str, float]
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    curve: tuple[Row, ...] = ()

    @property
    def has_failed(self) -> bool:
        return self.tags.get("status") == FAILED


@dataclass(frozen=True)
class Sweep:
    """One sweep, read from `reports/<name>/`; its fingerprint is that of all files there."""

    directory: Path
    name: str
    profile: str
    fingerprint: str
    params: dict[str, Any]
    failed: dict[str, str]  # reasons, by the name of the trial
    trials: tuple[Trial, ...]
    means: dict[str, float] = field(default_factory=dict)  # over seeds, by phase, cell and metric
    budget: str = ""  # that every training had
    revisions: tuple[dict[str, Any] | None, ...] = ()  # of the code; None without git
    missing: tuple[str, ...] = ()  # names of trials that are still to be made

    @property
    def figures(self) -> list[Path]:
        """Those of the report, each as picture and as numbers, drawn of this sweep or of one before."""
        patterns = FIGURES.get(self.name, ())
        return sorted({path for one in patterns for path in self.directory.parent.glob(f"figures/{one}")})

    @property
    def command(self) -> str:
        """That makes it where it is no stage of DVC."""
        return TABLES[self.name].command

    @property
    def stage(self) -> str:
        """The name of its DVC stage, if it is one."""
        return "" if self.command else self.name


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


def compared_cells(sweeps: Iterable[Sweep]) -> dict[str, list[str]]:
    """The short names of the sweep's cells by phases in which they stand against each other, the last one last."""
    trials = [trial.tags for sweep in sweeps if sweep.name == "grid" for trial in sweep.trials]
    cells = {phase: sorted({tags["short"] for tags in trials if tags["phase"] == phase}) for phase in COMPARED}
    return {phase: found for phase, found in cells.items() if found}


def read_sweep(directory: Path) -> Sweep:
    """Raises DamagedRecordError: run.json or a table is missing, cut short, or lacks an entry."""
    table, path = TABLES[directory.name], directory / "run.json"
    try:
        about = json.loads(path.read_text())
        entries = {name: about[name] for name in ("profile", "failed")}
        entries |= {"params": about.get("params", {}), "missing": tuple(about.get("missing", ()))}
        entries |= {"budget": str(about.get("budget", "")), "revisions": tuple(about.get("revisions", ()))}
        curves: dict[tuple[str, ...], list[Row]] = {}
        if table.curves:
            path = directory / table.curves
            for row in _rows(path):
                key = tuple(row.pop(name) for name in table.told_apart_by)
                curves.setdefault(key, []).append({name: float(value) for name, value in row.items() if value})
        if table.means:
            path = directory / table.means
            entries["means"] = dict(mean for row in _rows(path) for mean in _means(row))
        path = directory / table.file
        trials = tuple(_trial(row, table, curves) for row in _rows(path) if not _is_left(row))
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise DamagedRecordError(f"{path} is damaged: it lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    return Sweep(directory, directory.name, **entries, fingerprint=digest_of(directory), trials=trials)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"a row has not as many values as there are columns: {row}")
    return rows


def _is_left(row: Mapping[str, str]) -> bool:
    """Whether a trial of a sweep that was interrupted is still to be made: it did not fail for any reason."""
    return row.get("status") == FAILED and not row["reason"]


def _trial(row: dict[str, str], table: Table, curves: Mapping[tuple[str, ...], list[Row]]) -> Trial:
    metrics, tags, params = {}, {}, {}
    for column, value in row.items():
        number = None if column in (*table.names, *table.params, *table.words) else _number(value)
        if column in table.params:
            params |= {column: value} if value else {}
        elif number is not None:
            metrics[column] = number
        elif value:
            tags[column] = value
    if not table.curves:
        return Trial(" ".join(row[name] for name in table.names), metrics, tags)
    tags |= cell_names(row["method"], row["loss"])
    params |= {name: tags[name] for name in ("cell", *table.names)}
    name = f"{tags['cell']} {row['phase']} seed {row['seed']}"
    if row["phase"] == SEARCH:  # whose trials differ in their setting alone, which the rows of a curve do not have
        setting = ", ".join(f"{column} {row[column]}" for column in table.params if row[column])
        return Trial(f"{name}, {setting}", metrics, tags, params)
    return Trial(name, metrics, tags, params, tuple(curves.get(tuple(row[n] for n in table.told_apart_by), ())))


def _means(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """The mean over seeds and the ends of its interval, where it has them."""
    name = f"{row['phase']}.{row['method']}-{row['loss']}.{row['metric']}"
    for end, suffix in (("mean", ""), ("low", ".low"), ("high", ".high")):
        number = _number(row[end])
        if number is not None:
            yield f"{name}{suffix}", number


def _number(value: str) -> float | None:
    """None for a text, and for what has no value: an interval of a single seed."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
