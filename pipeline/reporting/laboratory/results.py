"""The laboratory's files, read: what was predicted, measured and concluded on processes of known density."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.grid import Cell
from pipeline.laboratory.verdicts import Optima, Parameters, Rules, distance, to_objective
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.laboratory.laws import Mixture, of_record
from pipeline.reporting.laboratory.tables import (
    TABLES,
    Claim,
    Judged,
    Measured,
    Optimum,
    RolledFrame,
    Step,
    read_table,
)
from pipeline.reporting.read import PROFILE_OF_RESULTS
from pipeline.reporting.sweep_tables import reading

COMMAND = "python3 -m pipeline laboratory"
DIRECTORY = "laboratory"
EXACT, LEARNED = "exact", "learned"
RECOGNISED = 0.75  # mean probability of a mode at its own clips, from which on it can be told from the others
AXES: dict[str, Mapping[str, type]] = {"method": METHODS, "loss": LOSSES}
PLANES = {  # which two of a student's parameters a map shows
    ("m", "s"): ("m", "s"),
    ("m1", "s1", "c", "m2", "s2"): ("c", "s2"),
    ("s1", "c", "s"): ("c", "s"),
}


@dataclass(frozen=True)
class Laboratory:
    """A whole run."""

    measured: list[Measured]
    curves: list[Step]
    optima: list[Optimum]
    judged: list[Judged]
    claims: list[Claim]
    rolled: list[RolledFrame]
    laws: dict[str, Mixture]  # of the processes
    without: dict[str, dict[str, str]]  # by process, objectives that have no predicted optimum there, and why
    params: dict[str, Any]
    profile: str
    seed: int
    failed: dict[str, str]
    versions: dict[str, str]
    revisions: list[dict[str, Any]]

    @property
    def warning(self) -> str | None:
        """What every figure and table of a profile whose numbers mean nothing must say."""
        return None if self.profile == PROFILE_OF_RESULTS else f"profile {self.profile}: these numbers mean nothing"

    @property
    def processes(self) -> list[str]:
        """On which something was judged."""
        return sorted({row.process for row in self.judged})

    @property
    def num_seeds(self) -> int:
        return len({row.seed for row in self.measured})

    @property
    def seeds(self) -> str:
        """How many, for captions."""
        return f"{self.num_seeds} seed{'s' if self.num_seeds > 1 else ''}"

    @cached_property
    def rules(self) -> Rules:
        rules = self.params["rules"]
        return Rules(**{field.name: rules[field.name] for field in dataclasses.fields(Rules)})

    @cached_property
    def sites(self) -> dict[str, Optima]:
        """The fixed optima of every process, the best of an objective first."""
        found: dict[str, dict[str, list[Parameters]]] = {}
        for one in sorted(self.optima, key=lambda optimum: optimum.rank):
            if not one.flat:
                found.setdefault(one.process, {}).setdefault(one.objective, []).append(one.at)
        return dict(found)

    @cached_property
    def modes(self) -> dict[str, list[int]]:
        """Of every process the modes that can be told from the others by their clips."""
        told = {name: law.recognised() for name, law in self.laws.items()}
        return {name: np.flatnonzero(own >= RECOGNISED).tolist() for name, own in told.items()}

    def best(self, process: str) -> dict[str, Parameters]:
        """Of every objective, its best optimum."""
        return {name: at[0] for name, at in self.sites.get(process, {}).items()}

    def away(self, row: Judged, objective: str) -> float | None:
        """How far it lies from the nearest optimum of an objective; None where that has none."""
        optima = self.sites[row.process].get(objective)
        return to_objective(row.at, optima) if optima else None

    def is_at(self, row: Judged, objective: str) -> bool:
        """Whether it lies within the tolerance of the objective."""
        away = self.away(row, objective)
        return away is not None and away <= self.rules.within(row.critics)

    def is_at_local(self, row: Judged, objective: str) -> bool:
        """Whether it lies at an optimum of the objective that is not its best."""
        best = self.best(row.process)[objective]
        return self.is_at(row, objective) and distance(row.at, best) > self.rules.within(row.critics)

    def settled_on(self, row: Judged) -> str | None:
        """The derived objective where it lies there, else the nearest within the tolerance, else none."""
        if row.derived and self.is_at(row, row.derived):
            return row.derived
        return row.nearest if self.is_at(row, row.nearest) else None

    def about(self, process: str) -> str:
        """What a process is, in the words of params.yaml."""
        return self.params["settings"][process]["about"]

    def of(self, name: str, process: str, critics: str = EXACT) -> Judged | None:
        """One row of the verdicts."""
        rows = (row for row in self.judged if (row.cell, row.process, row.critics) == (name, process, critics))
        return next(rows, None)

    def place(self, name: str) -> Cell:
        """Method and loss of a cell, by the names that the grid has for them."""
        cell = self.params["cells"][name]
        return Cell(**{axis: _registered(cell[axis]["type"], known) for axis, known in AXES.items()})

    def subject(self, row: Judged) -> str:
        """By which claims call it: its method and loss, and switches."""
        return row.row_of_claims or " x ".join(self.place(row.cell))

    def rows_of(self, subject: str) -> list[Judged]:
        """With exact critics, what claims on this subject are judged by."""
        return [row for row in self.judged if row.critics == EXACT and self.subject(row) == subject]


def read_laboratory(reports: Path) -> Laboratory:
    """What stands in reports/laboratory.

    Raises:
        DamagedRecordError: a file is missing, damaged, or lacks an entry.
    """
    path = reports / DIRECTORY / "run.json"
    with reading(path):
        about = json.loads(path.read_text())
        names = ("params", "profile", "seed", "failed", "versions", "revisions", "without")
        named = {name: about[name] for name in names}
        laws = {name: of_record(law) for name, law in about["laws"].items()}
        for cell in named["params"]["cells"].values():
            for axis, known in AXES.items():
                _registered(cell[axis]["type"], known)
    tables = {name: read_table(path.with_name(f"{file}.csv"), kind) for name, (file, kind) in TABLES.items()}
    found = Laboratory(**tables, laws=laws, **named)
    with reading(path.with_name("predicted.csv")):
        silent = [row.process for row in found.judged if row.process not in found.sites]
        if silent:
            raise ValueError(f"it has no optimum of {', '.join(sorted(set(silent)))}")
    with reading(path.with_name("verdicts.csv")):
        unknown = sorted({row.cell for row in found.judged} - set(found.params["cells"]))
        unknown += sorted({row.process for row in found.judged} - set(laws))
        if unknown:
            raise ValueError(f"run.json knows no {', '.join(unknown)}")
    return found


def _registered(kind: str, known: Mapping[str, type]) -> str:
    """The name that a registry has for a class. Raises ValueError when it has none."""
    name = kind.rpartition(".")[2]
    for key, entry in known.items():
        if entry.__name__ == name:
            return key
    raise ValueError(f"no {name} is known; known: {', '.join(known)}")


def plane_of(at: Mapping[str, float]) -> tuple[str, str]:
    """Which two parameters a map shows."""
    for names, plane in PLANES.items():
        if set(names) == set(at):
            return plane
    raise ValueError(f"no student has the parameters {', '.join(at)}")
