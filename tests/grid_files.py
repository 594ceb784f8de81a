"""The files of a grid, made up: what `python3 -m pipeline every-cell` would have written."""

import csv
import json

import numpy as np

from pipeline.grid import Cell, cells
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.cells import (
    START,
)
from pipeline.reporting.read import artifact_digest, read_study

FAILED = Cell("teacher_forcing", "sid")
STARTS = {"bidirectional": 25.0, "teacher_forcing": 16.1, "diffusion_forcing": 16.1, "self_forcing": 16.1}
PICTURES = ("cells.svg", "cells_curves.svg", "cells_clips.png")
NUMBERS = (
    *("excess", "excess_low", "excess_high", "first_to_second", "first_to_last", "coverage", "drift_slope"),
    *("student_updates", "critic_updates", "clips_seen", "tflop", "seconds"),
)


def row_of(cell, excess, kept, critics=0, tflop=0.0, seconds=0.0, teacher=""):
    """A row of cells.csv; the interval is of 8 % to either side."""
    interval = (0.92 * excess, 1.08 * excess)
    shares = (kept + 0.03, kept, max(0.05, 0.9 - excess / 50))
    updates = (60, critics, 64 * (60 + critics)) if tflop else (0, 0, 0)
    numbers = (excess, *interval, *shares, -0.2, *updates, tflop, seconds)
    return {**cell._asdict(), "teacher": teacher, **dict(zip(NUMBERS, numbers, strict=True))}


def grid_rows():
    """Made up, as different as real cells are: from 4.9 on, the best diffusion forcing with dmd."""
    rng = np.random.default_rng(1)
    rows = [row_of(Cell(method, START), excess, 0.83) for method, excess in STARTS.items()]
    for cell in cells():
        if cell.excluded or cell == FAILED:
            continue
        excess = round(float(STARTS[cell.method] * 2 ** rng.uniform(-1.3, 1.3)), 3)
        excess = 4.9 if cell == ("diffusion_forcing", "dmd") else max(excess, 5.3)
        critics = {"dmd": 240, "sid": 240, "f_distill": 240, "gan": 60, "add": 60, "pagoda": 60}.get(cell.loss, 0)
        cost = round(float(rng.uniform(0.5, 1.5)) * (1.1 + critics / 60), 2)
        kept = round(float(np.clip(0.93 - excess / 150, 0.7, 0.9)), 4)
        rows.append(row_of(cell, excess, kept, critics, cost, round(14 * cost, 1), cell.teacher or ""))
    return rows


def curve_rows(rows):
    rng = np.random.default_rng(2)
    for row in rows:
        for step in range(5, 61, 5) if row["student_updates"] else ():
            student = row["excess"] / 16 * np.exp(-step / 40) + 0.03 * rng.normal()
            critic = 0.7 + 0.1 * rng.normal() if row["critic_updates"] else ""
            yield {"method": row["method"], "loss": row["loss"], "step": step, "student_loss": student,
                   "critic_loss": critic, "grad_norm": 1.0}  # fmt: skip


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_cells(reports, *, rows=None, codec=None, profile=None, failed=None):
    """What `python3 -m pipeline every-cell` leaves behind; one cell of it failed."""
    directory, study = reports / "cells", read_study(reports)
    directory.mkdir(exist_ok=True)
    rows = rows or grid_rows()
    write_csv(directory / "cells.csv", rows)
    write_csv(directory / "curves.csv", list(curve_rows(rows)))
    real = np.load(reports / "evaluate" / "rollout-dmd" / "samples.npz")["generated"]
    rng, clips = np.random.default_rng(3), {}
    for row in rows:
        spoilt = real[:4] + 3 * float(row["excess"]) * rng.normal(size=real[:4].shape)
        clips[f"{row['method']}-{row['loss']}"] = np.clip(spoilt, 0, 255).astype(np.uint8)
    np.savez_compressed(directory / "samples.npz", **clips)
    params = {
        "methods": {name: {} for name in METHODS},
        "losses": {name: {} for name in LOSSES},
        "training": {"num_steps": 60, "batch_size": 64, "optimizer": {"name": "adamw", "learning_rate": 1e-4}},
        "num_clips": 1024,
    }
    about = {
        "profile": profile or study.profile,
        "seed": 0,
        "codec": codec or artifact_digest(study.stage("codec")),
        "params": params,
        "failed": {"-".join(FAILED): "student_loss must be finite: nan"} if failed is None else failed,
    }
    (directory / "run.json").write_text(json.dumps(about))
    return directory
