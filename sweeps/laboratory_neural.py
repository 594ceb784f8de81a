"""The laboratory's neural students: each after those that it begins from, and the rows of their tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.laboratory.estimators_bias import EstimatorBias
from pipeline.laboratory.neural_run import NeuralTask
from pipeline.laboratory.run import Key, LaboratoryRun
from sweeps.parallel import OnShare
from sweeps.runner import InTurn

NEURAL, ESTIMATORS = "neural", "estimators"  # in the place of a cell, which is in that of the process
BIAS_STEPS = 500  # of the bar, for the estimators
ESTIMATED = ("value", "low", "high", "estimator")
Row = dict[str, Any]
Metrics = Mapping[str, Any]


def neural_tasks(run: LaboratoryRun, seed: int) -> dict[Key, NeuralTask | EstimatorBias]:
    """Seeds are counted from `seed`. First, of all seeds, the students from which others begin."""
    every = {
        Key(NEURAL, cell, "", number): task
        for number in range(seed, seed + run.neural.num_seeds)
        for cell, task in run.neural_tasks(number).items()
    }
    in_order = sorted(every, key=lambda key: len(every[key].inputs))
    return {**{key: every[key] for key in in_order}, Key(ESTIMATORS, "", "", seed): run.neural.bias(seed)}


def num_updates(task: NeuralTask | EstimatorBias) -> int:
    """Of the student and of its critics."""
    if isinstance(task, EstimatorBias):
        return BIAS_STEPS
    return task.student.training.num_steps * (1 + task.student.loss.critic_updates)


def in_turn(task: NeuralTask, on_share: OnShare) -> InTurn:
    """The units of a task, with the shares of its time that they take."""
    students = {**task.origins, "unit": task.student}
    return InTurn({name: float(num_updates(NeuralTask(one, {}, {}))) for name, one in students.items()}, on_share)


def make_after_origins(task: NeuralTask, units: InTurn) -> Path:
    """The directory of the student; an origin that another task has made is found."""
    made = {name: units.make(name, "laboratory", origin, {}) / "out" for name, origin in task.origins.items()}
    return units.make("unit", "laboratory", task.student, {part: made[name] for part, name in task.inputs.items()})


def neural_tables(process: str, found: Mapping[Key, Metrics]) -> dict[str, list[Row]]:
    """By the name of the file, of what was made of the tasks; the others are left out."""
    files = ("neural.csv", "neural_modes.csv", "neural_steps.csv", "estimators.csv")
    rows: dict[str, list[Row]] = {name: [] for name in files}
    for key, metrics in found.items():
        if key.cell == NEURAL:
            about = {"cell": key.process, "process": process, "seed": key.seed}
            rows["neural.csv"] += ({**about, **row} for row in divergence_rows(metrics))
            rows["neural_modes.csv"] += ({**about, **row} for row in mode_rows(metrics))
            rows["neural_steps.csv"] += ({**about, **row} for row in step_rows(metrics))
        if key.cell == ESTIMATORS:
            rows["estimators.csv"] += bias_rows(metrics)
    return rows


def divergence_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a divergence."""
    for divergence, found in metrics["divergences"].items():
        yield {"divergence": divergence, **{column: found[column] for column in ESTIMATED}}


def mode_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a component of data."""
    for mode, shares in enumerate(zip(metrics["shares"], metrics["data_shares"], strict=True)):
        yield {"mode": mode, "share": shares[0], "data_share": shares[1]}


def step_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a frame, for contexts of both kinds; none for a student that makes all frames at once."""
    for contexts, steps in metrics["steps"].items():
        for frame, found in enumerate(steps):
            yield {"contexts": contexts, "frame": frame, **{column: found[column] for column in ESTIMATED}}


def bias_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a pair, divergence, estimator and number of draws."""
    columns = ("pair", "dimensions", "divergence", "estimator", "num_samples", "exact", "estimate", "low", "high")
    for row in metrics["estimates"]:
        yield {column: row[column] for column in columns}
