"""What trials side by side are worth, and what Ray and MLflow cost: python -m sweeps.bench

Rows of one run are compared as ratios, since machines are noisy.
"""

import csv
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Params
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.training.cell import TrainCell
from stages.entry import REPORTS, stage
from sweeps.cluster import Resources, cluster
from sweeps.on_ray import on_ray
from sweeps.parallel import OnShare, Run

NUM_STEPS = 9  # of every training; the first counts operations, and is not timed
NUM_CLIPS = 512
NUM_EMPTY = 24  # tasks that do nothing


@dataclass(frozen=True)
class Steps:
    """Some steps of a cell on noise; critics are made from a teacher of random weights."""

    cell: TrainCell
    teacher: DenoiserSpec | None
    num_frames: int


def main(params: Params) -> None:
    """One after the other with all threads, side by side with one each, then what the tools take."""
    rates, overheads = {}, {}
    num_cores = os.cpu_count() or 1
    for num_threads in (num_cores, 1):
        tasks, resources = trainings(params, num_threads), Resources(num_cpus=num_threads)
        start = time.perf_counter()
        with cluster(resources) as num_at_once:
            overheads["launch"] = time.perf_counter() - start
            spend(take_steps, dict(list(tasks.items())[:num_at_once]), resources)  # workers import the library
            _, taken = spend(take_steps, tasks, resources)
            rates[num_threads] = 3600 * num_at_once / statistics.mean(taken)  # while all places are taken
            said = f"{num_at_once} at a time, threads of each: {num_threads}"
            done = f"{len(tasks)} trainings of {NUM_STEPS - 1} steps, {statistics.mean(taken):.2f} s on the average"
            write(f"{said:36}{done}: {rates[num_threads]:5.0f} an hour")
            empty = dict.fromkeys(map(str, range(NUM_EMPTY)))
            overheads["trial"] = spend(nothing, empty, resources)[0] / NUM_EMPTY * num_at_once
    write(f"side by side does {rates[1] / rates[num_cores]:.2f} times as many")
    if (REPORTS / "grid" / "trials.csv").exists():
        shares(overheads, num_at_once=num_cores)
    else:
        write("shares of a sweep: there is none yet, run python3 -m pipeline sweep first")


def trainings(params: Params, num_threads: int) -> dict[str, Steps]:
    """Every cell of the sweep."""
    found = {}
    for cell in params.sweep.selected(params.grid.methods, params.grid.losses).cells:
        units = params.cell_units(cell)
        teacher = params.teacher_unit(units.teacher).denoiser if units.teacher else None
        train = replace(units.train, num_threads=num_threads)
        found[str(cell)] = Steps(train, teacher, params.prepare.num_frames)
    return found


def take_steps(task: Steps, on_share: OnShare) -> float:
    """Seconds of the bare training loop."""
    import torch

    from pipeline.training.loop import TrainState, train

    cell, spec = task.cell, task.cell.denoiser.backbone
    torch.set_num_threads(cell.num_threads)
    clips = torch.randn(NUM_CLIPS, task.num_frames, spec.channels, spec.frame_size, spec.frame_size)
    teacher = Denoiser(task.teacher) if task.teacher else None
    state = TrainState(Denoiser(cell.denoiser), cell.loss.critics(teacher), cell.training)
    steps = train(state, clips, method=cell.method, loss=cell.loss, seed=0)
    next(steps)
    start = time.perf_counter()
    for index in range(1, NUM_STEPS):
        next(steps)
        on_share((index + 1) / NUM_STEPS)
    return time.perf_counter() - start


def nothing(task: None, on_share: OnShare) -> None:
    """What is left is what Ray takes for a task."""


def spend(run: Run, tasks: Mapping[str, Any], resources: Resources) -> tuple[float, list[Any]]:
    """Seconds until the last task is done, and the results. Raises RuntimeError where one fails."""
    start, results = time.perf_counter(), []
    for event in on_ray(run, tasks, resources=resources, max_failures=0):
        if event.failure is not None:
            raise RuntimeError(f"{event.name}: {event.failure}")
        if event.is_last:
            results.append(event.result)
    return time.perf_counter() - start, results


def shares(overheads: Mapping[str, float], *, num_at_once: int) -> None:
    """Of the time of the sweep whose results are here, by the seconds that its units took."""
    from pipeline.tracking import track

    with (REPORTS / "grid" / "trials.csv").open(newline="") as file:
        done = {row["evaluate_fingerprint"]: row for row in csv.DictReader(file) if row["status"] == "done"}
    busy = sum(float(row["seconds"]) + float(row["evaluate_seconds"]) for row in done.values()) / num_at_once
    ray = overheads["launch"] + overheads["trial"] * len(done) / num_at_once
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(REPORTS / "grid", Path(place, "reports", "grid"))
        start = time.perf_counter()
        track(Path(place), Path(place, "work"))
        mlflow = time.perf_counter() - start
    write(f"the sweep: {len(done)} trials, {busy / 60:.1f} min at {num_at_once} at a time")
    for name, seconds in (("Ray", ray), ("MLflow", mlflow)):
        write(f"{name:8}{seconds:6.1f} s, {100 * seconds / (busy + ray + mlflow):.1f} % of the whole")
    write(f"of Ray, the launch takes {overheads['launch']:.1f} s and a trial {1000 * overheads['trial']:.0f} ms")


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    stage(main)
