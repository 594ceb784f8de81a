"""Every cell as `python3 -m pipeline every-cell` measured it: read, judged against its start, in words."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.columns import COLUMNS
from pipeline.reporting.read import TIMES
from pipeline.reporting.sweep_tables import Place, read_rows, reading, text_table
from pipeline.reporting.tables import best_rows

COMMAND = "python3 -m pipeline every-cell"
START = "start"  # in the place of a cell's loss: what the cells of a method start from
BETTER, WORSE, OPEN, UNKNOWN = "better", "worse", "not separated", "start unknown"
CAVEAT = "One seed: the intervals are over clips, not over training runs."
SHOWN = {  # of a row, in the order of the table: its title, which end is better, and how it is written
    "excess": ("excess FVD", -1, ".1f"),
    "first_to_second": (COLUMNS["agreement_second"].title, +1, ".3f"),
    "first_to_last": (COLUMNS["agreement_last"].title, +1, ".3f"),
    "coverage": ("coverage", +1, ".3f"),
    "critic_updates": ("critics", 0, ",d"),
    "tflop": ("TFLOP", -1, ",.1f"),
    "seconds": ("seconds", -1, ",.0f"),
}
SPENT = ("critic_updates", "tflop", "seconds")
NUM_LEFT = 2  # columns of words: method, loss


@dataclass(frozen=True)
class CellRow:
    """A row of cells.csv."""

    method: str
    loss: str
    teacher: str  # that its loss asked; empty: none
    excess: float
    excess_low: float
    excess_high: float
    first_to_second: float
    first_to_last: float
    coverage: float
    student_updates: int
    critic_updates: int
    tflop: float
    seconds: float

    @property
    def name(self) -> str:
        return name_of(Cell(self.method, self.loss))


@dataclass(frozen=True)
class CurvePoint:
    """A row of curves.csv."""

    method: str
    loss: str
    step: int
    student_loss: float | None
    critic_loss: float | None


@dataclass(frozen=True)
class Cells:
    """The whole grid: every cell is trained, failed or excluded."""

    methods: tuple[str, ...]
    losses: tuple[str, ...]
    trained: dict[Cell, CellRow]
    starts: dict[str, CellRow]  # by method
    curves: dict[Cell, list[CurvePoint]]
    failed: dict[Cell, str]
    excluded: dict[Cell, str]
    profile: str
    codec: str  # digest of the artifacts whose latents the students speak
    num_clips: int
    training: dict[str, Any]

    def start_of(self, cell: Cell) -> CellRow | None:
        """What it started from; None where that could not be measured."""
        return self.starts.get(cell.method)

    def verdict(self, cell: Cell) -> str:
        """Of a trained cell against its start."""
        start = self.start_of(cell)
        return verdict(self.trained[cell], start) if start else UNKNOWN

    def of(self, said: str) -> list[CellRow]:
        """The trained cells with this verdict."""
        return [row for cell, row in self.trained.items() if self.verdict(cell) == said]

    @property
    def best(self) -> CellRow:
        """The cell with the least excess FVD."""
        return min(self.trained.values(), key=lambda row: row.excess)


def name_of(cell: Cell) -> str:
    """For people."""
    return f"{cell.method} {TIMES} {cell.loss}".replace("_", " ")


def verdict(row: CellRow, start: CellRow) -> str:
    """Better or worse only where the two intervals of the excess have no point in common."""
    if row.excess_high < start.excess_low:
        return BETTER
    return WORSE if row.excess_low > start.excess_high else OPEN


def read_cells(reports: Path) -> Cells:
    """What stands in reports/cells.

    Raises:
        DamagedRecordError: a file is missing, damaged, lacks an entry, or says nothing of a cell of the grid.
    """
    path = reports / "cells" / "run.json"
    with reading(path):
        about = json.loads(path.read_text())
        grid = about["params"]
        for name, known in (*((m, METHODS) for m in grid["methods"]), *((n, LOSSES) for n in grid["losses"])):
            if name not in known:
                raise ValueError(f"the grid has no {name}; known: {', '.join(known)}")
        methods, losses = (
            tuple(name for name in known if name in grid[axis])
            for axis, known in (("methods", METHODS), ("losses", LOSSES))
        )
        cells = [Cell(method, loss) for method in methods for loss in losses]
        failed = {Cell(*name.split("-")): reason for name, reason in about["failed"].items()}
        named = {name: about[name] for name in ("profile", "codec")}
        named |= {name: grid[name] for name in ("num_clips", "training")}
    curves: dict[Cell, list[CurvePoint]] = {}
    for point in read_rows(path.with_name("curves.csv"), CurvePoint):
        curves.setdefault(Cell(point.method, point.loss), []).append(point)
    path = path.with_name("cells.csv")
    rows = {Cell(row.method, row.loss): row for row in read_rows(path, CellRow)}
    excluded = {cell: reason for cell in cells if (reason := cell.excluded)}
    trained = {cell: rows[cell] for cell in cells if cell in rows}
    starts = {method: rows[Cell(method, START)] for method in methods if Cell(method, START) in rows}
    with reading(path):
        told = {*trained, *failed, *excluded}
        silent = [name_of(cell) for cell in cells if cell not in told]
        if silent or not trained:
            raise ValueError(f"it has no row of {', '.join(silent) or 'any cell'}")
    return Cells(methods, losses, trained, starts, curves, failed, excluded, **named)


def answer(found: Cells) -> list[str]:
    """What came out, in a few sentences made of the numbers."""
    best, better = found.best, found.of(BETTER)
    start = found.starts.get(best.method)
    begun = f", from {start.excess:.1f} at its start" if start else ""
    counts = ", ".join(f"{len(found.of(said))} {said}" for said in (WORSE, OPEN, UNKNOWN) if found.of(said))
    lines = [
        f"Of {len(found.trained)} cells that were trained, {len(better)} are better than what they started from"
        + (f" ({counts})" if counts else "")
        + f"; {sum(cell.loss != START for cell in found.failed)} failed, {len(found.excluded)} are excluded.",
        f"The best is {best.name}: excess FVD {interval(best)}{begun}, for {spent(best)}.",
    ]
    if better:
        cheapest = min(better, key=lambda row: (row.tflop, row.seconds))
        lines.append(
            f"The cheapest that is better than its start is {cheapest.name}: {interval(cheapest)}, "
            f"for {spent(cheapest)}."
        )
    return [*lines, f"{CAVEAT} {BETTER.capitalize()}, {WORSE}: the intervals of cell and start do not touch."]


def fairness(found: Cells) -> str:
    """What all cells have in common, and what not."""
    student, training = found.training["optimizer"], found.training
    updates = sorted({row.student_updates for row in found.trained.values()})
    return (
        f"Student updates of each cell: {' to '.join(f'{n:,}' for n in (*updates[:1], *updates[1:][-1:]))}, of "
        f"{training['batch_size']:,} clips, by {student['name']} at learning rate {student['learning_rate']:g}; "
        f"evaluated on {found.num_clips:,} clips, in as many steps as its start. Critics learn besides: "
        f"the columns show their updates, and what the whole training cost."
    )


def interval(row: CellRow) -> str:
    return f"{row.excess:.1f} [{row.excess_low:.1f}, {row.excess_high:.1f}]"


def spent(row: CellRow) -> str:
    return f"{row.tflop:,.1f} TFLOP in {row.seconds:,.0f} s"


def table_rows(found: Cells) -> list[CellRow]:
    """What each method starts from, then its cells."""
    rows = []
    for method in found.methods:
        rows += [found.starts[method]] if method in found.starts else []
        rows += [row for cell, row in found.trained.items() if cell.method == method]
    return rows


def lines_of(found: Cells) -> list[list[str]]:
    """A line of heads, then one a row of `table_rows`."""
    lines = [["method", "loss", *(title for title, _, _ in SHOWN.values())]]
    lines[0].insert(NUM_LEFT + 1, "verdict")
    for row in table_rows(found):
        is_start = row.loss == START
        numbers = {name: format(vars(row)[name], how) for name, (_, _, how) in SHOWN.items()}
        numbers |= {"excess": interval(row)}
        if is_start:
            numbers |= dict.fromkeys(SPENT, "")
        line = [row.method.replace("_", " "), row.loss.replace("_", " "), *numbers.values()]
        line.insert(NUM_LEFT + 1, "" if is_start else found.verdict(Cell(row.method, row.loss)))
        lines.append(line)
    return lines


def best_places(found: Cells) -> set[Place]:
    """Row and column of the best values of every column; a start is no cell."""
    rows = table_rows(found)
    places: set[Place] = set()
    for index, (name, (_, better, _)) in enumerate(SHOWN.items()):
        values = [None if row.loss == START else vars(row)[name] for row in rows]
        column = NUM_LEFT + index + (index > 0)  # past the verdict, which follows the excess
        places |= {(row, column) for row in best_rows(values, better)}
    return places


def as_text(found: Cells) -> str:
    """The table and what it says, for a terminal of 120 columns."""
    shown = text_table(lines_of(found), num_left=NUM_LEFT, best=best_places(found))
    absent = [f"failed: {name_of(cell)}: {reason}" for cell, reason in found.failed.items()]
    absent += [f"excluded: {name_of(cell)}: {reason}" for cell, reason in found.excluded.items()]
    return "\n".join([shown, "", *absent, "", *answer(found), fairness(found)])
