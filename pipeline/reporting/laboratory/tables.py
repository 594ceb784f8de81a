"""The rows of the laboratory's CSVs."""

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.laboratory.verdicts import Point
from pipeline.reporting.sweep_tables import reading

PARAMETERS = ("m", "m1", "s1", "c", "m2", "s2", "s")


@dataclass(frozen=True)
class Measured:
    """Where one seed of a cell has settled: a row of measured.csv. kept: the share of each mode of data."""

    cell: str
    process: str
    critics: str
    seed: int
    at: dict[str, float]
    forward_kl: float | None
    reverse_kl: float | None
    jensen_shannon: float | None
    kept: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """The parameters after some updates: a row of curves.csv."""

    cell: str
    process: str
    critics: str
    seed: int
    step: int
    at: dict[str, float]


@dataclass(frozen=True)
class Optimum:
    """A predicted optimum: a row of predicted.csv. rank: 0 is the best of its objective; flat: no point is."""

    process: str
    objective: str
    rank: int
    at: dict[str, float]
    flat: bool
    kept: tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """What the seeds of a cell say together: a row of verdicts.csv. Empty words: nothing is said."""

    cell: str
    process: str
    critics: str
    claimed: str
    verdict: str
    reason: str
    derived: str
    derived_verdict: str
    derived_reason: str
    nearest: str
    distance: float
    runner_up: str
    runner_up_distance: float | None
    inseparable: str
    kept: tuple[float, ...]
    at: dict[str, float]
    half_width: dict[str, float]
    row_of_claims: str = ""
    text_claimed: str = ""
    text_verdict: str = ""
    text_reason: str = ""

    @property
    def point(self) -> Point:
        return Point(self.at, self.half_width)


@dataclass(frozen=True)
class Claim:
    """What all processes say of a row of the sources' table: a row of claims.csv. reading: `table` or `text`."""

    claim: str
    verdict: str
    reason: str
    num_confirmed: int
    num_refuted: int
    num_undecided: int
    reading: str = "table"

    @property
    def subject(self) -> str:
        """Of which cells it speaks: method and loss, switches in brackets, like self_forcing x gan (saturating)."""
        return self.claim.rpartition(": ")[0].replace("-", " x ", 1)

    @property
    def claimed(self) -> str:
        return self.claim.rpartition(": ")[2]


@dataclass(frozen=True)
class RolledFrame:
    """A frame, counted from 0, of the roll-outs of one seed's student: a row of exposure.csv."""

    rollout: str
    seed: int
    frame: int
    mean: float
    variance: float
    predicted_variance: float
    correlation: float | None
    reverse_kl_by_frame: float | None


TABLES: dict[str, tuple[str, type]] = {  # what a run calls them: the file, and what a row is
    "measured": ("measured", Measured),
    "curves": ("curves", Step),
    "optima": ("predicted", Optimum),
    "judged": ("verdicts", Judged),
    "claims": ("claims", Claim),
    "rolled": ("exposure", RolledFrame),
}


def read_table(path: Path, kind: type) -> list[Any]:
    """The rows of a CSV as `kind`. `at` are the parameters that a row has, and `half_width` those of its interval.

    Raises:
        DamagedRecordError: the file is missing, empty, or a row is not of that kind.
    """
    with reading(path), path.open(newline="") as file:
        rows = [_as(kind, row) for row in csv.DictReader(file, strict=True)]
        if not rows:
            raise ValueError("it has no lines")
    return rows


def _as(kind: type, row: Mapping[str, str]) -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name == "at":
            values["at"] = {name: float(row[name]) for name in PARAMETERS if row.get(name)}
            if not values["at"]:
                raise ValueError("a row has no parameter")
        elif field.name == "half_width":
            values[field.name] = {name: float(row[f"{name}_{field.name}"]) for name in PARAMETERS if row.get(name)}
        elif field.name in row or field.default is dataclasses.MISSING:
            values[field.name] = PARSERS[field.type](row[field.name])
    return kind(**values)


def _flag(text: str) -> bool:
    return {"True": True, "False": False}[text]


PARSERS: dict[Any, Any] = {
    str: str,
    int: int,
    bool: _flag,
    float: float,
    float | None: lambda text: float(text) if text else None,
    tuple[float, ...]: lambda text: tuple(float(part) for part in text.split(";") if part),
}
