"""Train and measure every cell of the grid from the shared teachers: python -m sweeps.grid

Interrupted, it goes on where it was; a second call makes only the cells that changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Params
from pipeline.evaluation.evaluate import Evaluate
from pipeline.grid import Cell, derived_divergence
from pipeline.grid_run import CellUnits
from pipeline.params import TEACHERS
from pipeline.unit import as_plain, digest_of, replace_file, write_json
from stages.entry import ARTIFACTS, REPORTS, stage
from sweeps.parallel import OnShare
from sweeps.runner import InTurn, Made, about, check_inputs, end_if_failed, run_all

START = "start"  # in the place of a cell's loss: what the cells of a method start from
SHARES = {"train": 0.7, "evaluate": 0.3}  # of the time, on the average over cells
NUM_SHOWN = 4  # clips that are kept of every cell
CURVES = ("student_loss", "critic_loss", "grad_norm")
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A cell, or what cells start from, which is only measured."""

    work: CellUnits | Evaluate
    origin: Path
    artifacts: Path


@dataclass(frozen=True)
class Result:
    """What the files of a task's units say, its curve, and its first clips (N, T, H, W, C)."""

    made: Made
    curve: list[Row]
    clips: np.ndarray


def main(params: Params) -> None:
    """All cells, their table, and the report; exit code 1 when one of them failed."""
    from pipeline.reporting.cells import as_text, read_cells
    from pipeline.reporting.page import write_report

    check_inputs(ARTIFACTS, teachers=tuple(TEACHERS))
    tasks = tasks_of(params, ARTIFACTS)
    updates = {key: num_updates(task) for key, task in tasks.items()}
    outcome = run_all(make, tasks, updates, name="grid", noun="cells")
    if outcome.made:
        write(params, outcome.made, outcome.failed, REPORTS / "cells")
        print(as_text(read_cells(REPORTS)), flush=True)
        print(f"\nReport: {write_report(REPORTS, profile=params.profile)}")
    end_if_failed(outcome, noun="cells")


def tasks_of(params: Params, artifacts: Path) -> dict[Cell, Task]:
    """What the methods start from, and every cell that can be trained."""
    origins = {attention: artifacts / "teacher" / name for name, attention in TEACHERS.items()}
    tasks = {}
    for method, entry in params.grid.methods.items():
        origin = origins[entry.attention]
        tasks[Cell(method, START)] = Task(params.start_unit(entry.attention), origin, artifacts)
        for cell in (Cell(method, loss) for loss in params.grid.losses):
            if cell.excluded is None:
                tasks[cell] = Task(params.cell_units(cell), origin, artifacts)
    return tasks


def num_updates(task: Task) -> int:
    """Of the student and of its critics; of what is only measured as if it were one, for the bar."""
    if isinstance(task.work, Evaluate):
        return 1
    train = task.work.train
    return train.training.num_steps * (1 + train.loss.critic_updates)


def make(task: Task, on_share: OnShare) -> Result:
    """Train and evaluate a cell; evaluate a start."""
    units, student, curve = InTurn(SHARES, on_share), task.origin, []
    if isinstance(task.work, CellUnits):
        inputs = {"codec": task.artifacts / "codec", "init": task.origin}
        if task.work.teacher is not None:
            inputs["teacher"] = task.artifacts / "teacher" / task.work.teacher
        directory = units.make("train", "cell", task.work.train, inputs)
        student = directory / "out"
        curve = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    evaluate = task.work.evaluate if isinstance(task.work, CellUnits) else task.work
    measured = {
        "clips": task.artifacts / "prepare",
        "features": task.artifacts / "features",
        "codec": task.artifacts / "codec",
        "student": student,
    }
    directory = units.make("evaluate", "evaluate", evaluate, measured)
    with np.load(directory / "show" / "samples.npz") as shown:
        return Result(units.made, curve, shown["generated"][:NUM_SHOWN])


def write(params: Params, made: dict[Cell, Result], failed: dict[Cell, str], target: Path) -> None:
    """cells.csv, curves.csv, samples.npz, and what they were made from: run.json."""
    import pandas as pd

    target.mkdir(parents=True, exist_ok=True)
    cells = [cell_row(cell, result, params) for cell, result in made.items()]
    curves = [curve_row(cell, row) for cell, result in made.items() for row in result.curve]
    for name, table in (("cells.csv", cells), ("curves.csv", curves)):
        replace_file(target / name, pd.DataFrame(table).to_csv(index=False, lineterminator="\n"))
    clips: dict[str, Any] = {name_of(cell): result.clips for cell, result in made.items()}
    np.savez_compressed(target / "samples.npz", **clips)
    said = about(
        {cell: result.made for cell, result in made.items()}, {name_of(c): why for c, why in failed.items()}
    )
    write_json(
        target / "run.json",
        {
            "profile": params.profile,
            "seed": params.seed,
            "codec": digest_of(ARTIFACTS / "codec"),
            "params": as_plain(params.grid),
            **said,
        },
    )


def name_of(cell: Cell) -> str:
    """Of a cell in tables and files."""
    return f"{cell.method}-{cell.loss}"


def cell_row(cell: Cell, result: Result, params: Params) -> Row:
    """What a cell reached and what it cost, from its start on."""
    measured = result.made["evaluate"]["metrics"]
    trained = result.made.get("train", {}).get("metrics", {})
    fvd, identity = measured["fvd"], measured["identity"]
    low, high = fvd["interval"]
    run = params.grid
    return {
        **cell._asdict(),
        "derived": derived_divergence(run.methods[cell.method], run.losses[cell.loss]) if trained else None,
        "teacher": params.cell_units(cell).teacher if trained else None,
        "excess": fvd["excess"],
        "excess_low": low,
        "excess_high": high,
        "first_to_second": identity["first_to_second"],
        "first_to_last": identity["first_to_last"],
        "coverage": measured["coverage"]["coverage"],
        "drift_slope": measured["drift_slope"],
        "student_updates": trained.get("student_updates", 0),
        "critic_updates": trained.get("critic_updates", 0),
        "clips_seen": trained.get("clips_seen", 0),
        "tflop": round(trained.get("flops", 0) / 1e12, 2),
        "seconds": round(result.made["train"]["timing"]["seconds"], 1) if trained else 0.0,
    }


def curve_row(cell: Cell, row: Row) -> Row:
    """One report of a training."""
    return {**cell._asdict(), "step": row["step"], **{name: row.get(name) for name in CURVES}}


if __name__ == "__main__":
    stage(main)
