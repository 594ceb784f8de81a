"""Train and measure every cell of the grid from the shared teachers: python -m sweeps.every_cell

Interrupted, it goes on where it was; a second call makes only the cells that changed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Params
from pipeline.grid import Cell, derived_divergence
from pipeline.params import TEACHERS
from pipeline.sweep.plan import START, name_of
from pipeline.unit import as_plain, digest_of, replace_file, write_json
from stages.entry import ARTIFACTS, REPORTS, stage
from sweeps.runner import about, check_inputs, end_if_failed, run_all, show
from sweeps.trial import CURVES, Result, Row, Task, inputs_of_cell, make


def main(params: Params) -> None:
    """All cells, their table, and the report; exit code 1 when one of them failed."""
    from pipeline.reporting.cells import as_text, read_cells
    from pipeline.reporting.page import write_report

    check_inputs(ARTIFACTS, teachers=tuple(TEACHERS))
    tasks = tasks_of(params, ARTIFACTS)
    updates = {key: task.num_updates for key, task in tasks.items()}
    outcome = run_all(make, tasks, updates, name="every cell", noun="cells")
    if outcome.made:
        write(params, outcome.made, outcome.failed, REPORTS / "cells")
        show(as_text(read_cells(REPORTS)))
        print(f"\nReport: {write_report(REPORTS, profile=params.profile)}")
    end_if_failed(outcome, noun="cells")


def tasks_of(params: Params, artifacts: Path) -> dict[Cell, Task]:
    """What the methods start from, and every cell that can be trained."""
    origins = {attention: artifacts / "teacher" / name for name, attention in TEACHERS.items()}
    tasks = {}
    for method, entry in params.grid.methods.items():
        start = inputs_of_cell(artifacts, origins[entry.attention], None)
        tasks[Cell(method, START)] = Task(params.start_unit(entry.attention), start)
        for cell in (Cell(method, loss) for loss in params.grid.losses):
            if cell.excluded is None:
                units = params.cell_units(cell)
                tasks[cell] = Task(units, inputs_of_cell(artifacts, origins[entry.attention], units.teacher))
    return tasks


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
