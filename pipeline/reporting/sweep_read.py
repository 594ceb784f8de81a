"""A sweep as `python3 -m pipeline sweep` left it, finished or not: its tables as rows, by phase and cell."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.read import TIMES
from pipeline.reporting.sweep_csv import (
    FRAME,
    WINDOW,
    AuditRow,
    CurvePoint,
    DriftRow,
    MeanRow,
    OrderRow,
    PairRow,
    RankRow,
    TrialRow,
)
from pipeline.reporting.sweep_tables import read_rows, reading

START, DEFAULT, TUNING, TUNED = "start", "default", "tuning", "tuned"
COMPARED = (DEFAULT, TUNED)  # phases in which cells stand against each other
PHASES = (START, DEFAULT, TUNING, TUNED)
DONE = "done"
EXCLUDED, FAILED, MISSING = "excluded", "failed", "missing"  # why a cell has no number
EXCESS = "excess"  # the metric that ranks; lower is better


@dataclass(frozen=True)
class Found:
    """The whole sweep: every cell is measured, failed, missing or excluded."""

    methods: tuple[str, ...]
    losses: tuple[str, ...]
    trials: tuple[TrialRow, ...]
    means: dict[str, dict[Cell, dict[str, MeanRow]]]  # by phase, cell and metric
    pairs: dict[str, tuple[PairRow, ...]]  # by phase
    ranks: dict[str, dict[Cell, RankRow]]  # by phase and cell
    orders: tuple[OrderRow, ...]
    audit: tuple[AuditRow, ...]
    curves: dict[tuple[str, Cell], tuple[CurvePoint, ...]]  # by phase and cell
    drift: dict[tuple[str, Cell], tuple[DriftRow, ...]]  # by phase and cell
    excluded: dict[Cell, str]
    failed: dict[str, str]  # reasons, by the name of the trial
    missing: tuple[str, ...]  # names of trials
    profile: str
    codec: str  # digest of the artifacts whose latents the students speak
    budget: str
    num_clips: int  # n of every measure
    confidence: float  # of the intervals
    seeds_asked: int  # of every cell, in each phase of the comparison
    is_to_be_tuned: bool
    trials_s: float  # of all units, one after the other
    grid: dict[str, Any]  # parameters of methods and losses, as `pipeline.unit.as_plain` wrote them

    @property
    def phases(self) -> list[str]:
        """Those of the comparison that have a measured cell."""
        return [phase for phase in COMPARED if self.means.get(phase)]

    @property
    def last(self) -> str:
        """The phase that speaks for the sweep: the tuned one where it is there."""
        return self.phases[-1]

    @property
    def cells(self) -> list[Cell]:
        """Those that were to be trained: all of the product but the excluded ones."""
        product = (Cell(method, loss) for method in self.methods for loss in self.losses)
        return [cell for cell in product if cell not in self.excluded]

    def excess(self, phase: str, cell: Cell) -> MeanRow | None:
        return self.means.get(phase, {}).get(cell, {}).get(EXCESS)

    def by_excess(self, phase: str) -> list[Cell]:
        """The measured cells, the best first."""
        means = self.means.get(phase, {})
        return sorted(means, key=lambda cell: means[cell][EXCESS].mean)

    def absence(self, phase: str, cell: Cell) -> tuple[str, str]:
        """Why a cell has no number in a phase, in a word, and the reason where one is known."""
        if cell in self.excluded:
            return EXCLUDED, self.excluded[cell]
        reasons = [t.reason for t in self.trials if (t.cell, t.phase) == (cell, phase) and t.reason]
        return (FAILED, reasons[0]) if reasons else (MISSING, "")

    @property
    def differing(self) -> list[AuditRow]:
        """In what the cells of the last phase differ."""
        return [row for row in self.audit if row.phase == self.last]

    def setting(self, phase: str, cell: Cell) -> TrialRow | None:
        """A trial with the setting of a cell in a phase; all its seeds have the same."""
        return next((t for t in self.trials if (t.cell, t.phase) == (cell, phase)), None)

    def num_seeds(self, phase: str) -> int:
        """Of the cell that has most."""
        return max((of[EXCESS].num_seeds for of in self.means.get(phase, {}).values()), default=0)


def name_of(cell: Cell) -> str:
    """For people."""
    return f"{cell.method} {TIMES} {cell.loss}".replace("_", " ")


def bounds(row: MeanRow | OrderRow | RankRow) -> tuple[float, float] | None:
    """The ends of its interval; None where it has none, as that of a single seed."""
    if row.low is None or row.high is None or not (math.isfinite(row.low) and math.isfinite(row.high)):
        return None
    return row.low, row.high


def interval(row: MeanRow | OrderRow | RankRow, value: float, how: str = ".1f") -> str:
    """A value with its interval, where it has one."""
    ends = bounds(row)
    return format(value, how) + (f" [{ends[0]:{how}}, {ends[1]:{how}}]" if ends else "")


def cell_of(key: str) -> Cell:
    """Of a name like "self_forcing-dmd". Raises ValueError when the grid has none."""
    method, _, loss = key.partition("-")
    for name, known in ((method, METHODS), (loss, LOSSES)):
        if name not in known:
            raise ValueError(f"the grid has no cell {key}; known: {', '.join(known)}")
    return Cell(method, loss)


def read_sweep(reports: Path) -> Found:
    """What stands in reports/grid.

    Raises:
        DamagedRecordError: a file is missing, damaged, or lacks an entry; or no cell was measured.
    """
    directory = reports / "grid"
    path = directory / "run.json"
    with reading(path):
        about = json.loads(path.read_text())
        named: dict[str, Any] = {name: about[name] for name in ("profile", "codec", "budget", "failed", "grid")}
        named |= {name: about["params"][name] for name in ("num_clips", "confidence")}
        named |= {"seeds_asked": len(about["params"]["seeds"]), "is_to_be_tuned": bool(about["params"]["tuning"])}
        named["trials_s"] = about["seconds"]["trials"]
        named["missing"] = tuple(map(str, about["missing"]))
        named["excluded"] = {cell_of(key): reason for key, reason in about["excluded"].items()}
    trials = tuple(read_rows(directory / "trials.csv", TrialRow))
    path = directory / "cells.csv"
    means: dict[str, dict[Cell, dict[str, MeanRow]]] = {}
    for row in read_rows(path, MeanRow):
        means.setdefault(row.phase, {}).setdefault(Cell(row.method, row.loss), {})[row.metric] = row
    with reading(path):
        present = [cell for phase in COMPARED for cell in means.get(phase, {})]
        for cell in (*present, *named["excluded"]):
            cell_of("-".join(cell))
        if not present:
            raise ValueError("it has no cell of the phases default and tuned")
        for phase, cells in means.items():
            silent = [name_of(cell) for cell, metrics in cells.items() if EXCESS not in metrics]
            if silent:
                raise ValueError(f"it has no excess, phase {phase}, of {', '.join(silent)}")
    asked = {*present, *named["excluded"], *(t.cell for t in trials if t.loss != START)}
    methods = tuple(name for name in METHODS if name in {cell.method for cell in asked})
    losses = tuple(name for name in LOSSES if name in {cell.loss for cell in asked})
    orders = tuple(read_rows(directory / "orders.csv", OrderRow, may_be_empty=True))
    audit = tuple(read_rows(directory / "audit.csv", AuditRow, may_be_empty=True))
    return Found(
        methods, losses, trials, means, orders=orders, audit=audit,
        pairs=_pairs(directory / "pairs.csv"), ranks=_ranks(directory / "ranks.csv"),
        curves=_curves(directory / "curves.csv"), drift=_drift(directory / "drift.csv", means), **named,
    )  # fmt: skip


def _pairs(path: Path) -> dict[str, tuple[PairRow, ...]]:
    found: dict[str, list[PairRow]] = {}
    rows = read_rows(path, PairRow, may_be_empty=True)
    with reading(path):
        for row in rows:
            for key in (row.a, row.b):
                cell_of(key)
            found.setdefault(row.phase, []).append(row)
    return {phase: tuple(pairs) for phase, pairs in found.items()}


def _ranks(path: Path) -> dict[str, dict[Cell, RankRow]]:
    found: dict[str, dict[Cell, RankRow]] = {}
    rows = read_rows(path, RankRow, may_be_empty=True)
    with reading(path):
        for row in rows:
            found.setdefault(row.phase, {})[cell_of(row.cell)] = row
    return found


def _curves(path: Path) -> dict[tuple[str, Cell], tuple[CurvePoint, ...]]:
    found: dict[tuple[str, Cell], list[CurvePoint]] = {}
    for point in read_rows(path, CurvePoint, may_be_empty=True):
        found.setdefault((point.phase, Cell(point.method, point.loss)), []).append(point)
    return {key: tuple(points) for key, points in found.items()}


def _drift(
    path: Path, means: dict[str, dict[Cell, dict[str, MeanRow]]]
) -> dict[tuple[str, Cell], tuple[DriftRow, ...]]:
    found: dict[tuple[str, Cell], list[DriftRow]] = {}
    rows = read_rows(path, DriftRow)
    with reading(path):
        for row in rows:
            if row.measure not in (WINDOW, FRAME):
                raise ValueError(f"a measure must be one of {WINDOW}, {FRAME}, got {row.measure}")
            found.setdefault((row.phase, Cell(row.method, row.loss)), []).append(row)
        silent = [name_of(cell) for phase, cells in means.items() for cell in cells if (phase, cell) not in found]
        if silent:
            raise ValueError(f"it has no row of {', '.join(silent)}")
    return {key: tuple(rows) for key, rows in found.items()}
