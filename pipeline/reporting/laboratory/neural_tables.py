"""The rows of the files on neural students and estimators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Divergence:
    """Of one seed's student from data, in nats a clip, with a 95 % interval: a row of neural.csv."""

    cell: str
    process: str
    seed: int
    divergence: str
    value: float
    low: float
    high: float
    estimator: str


@dataclass(frozen=True)
class ModeShare:
    """Of the clips of one seed's student: a row of neural_modes.csv."""

    cell: str
    process: str
    seed: int
    mode: int
    share: float
    data_share: float


@dataclass(frozen=True)
class StepKl:
    """Of one frame, counted from 0, after true contexts or its own: a row of neural_steps.csv."""

    cell: str
    process: str
    seed: int
    contexts: str
    frame: int
    value: float
    low: float
    high: float
    estimator: str


@dataclass(frozen=True)
class Bias:
    """Of an estimator on a pair whose divergence is known: a row of estimators.csv."""

    pair: str
    dimensions: int
    divergence: str
    estimator: str
    num_samples: int
    exact: float
    estimate: float
    low: float
    high: float


OfACell = TypeVar("OfACell", Divergence, ModeShare, StepKl)


def by_cell(rows: Sequence[OfACell]) -> dict[str, list[OfACell]]:
    """The rows of each cell."""
    found: dict[str, list[OfACell]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return found
