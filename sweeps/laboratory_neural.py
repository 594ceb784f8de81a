"""The laboratory's neural students: each after those that it begins from, and the rows of their tables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.laboratory.neural_run import NeuralTask
from sweeps.parallel import OnShare
from sweeps.runner import InTurn

ESTIMATED = ("value", "low", "high", "estimator")
OF_A_BIAS = (
    *("pair", "dimensions", "divergence", "estimator", "num_samples"),
    *("exact", "estimate", "low", "high"),
)
Row = dict[str, Any]
Metrics = Mapping[str, Any]
Measured = Mapping[tuple[str, int], Metrics]  # by cell and seed


def make_after_origins(task: NeuralTask, units: InTurn) -> None:
    """The units of a task; one that another task has made is found."""
    made = {name: units.make(name, "laboratory", origin, {}) / "out" for name, origin in task.origins.items()}
    inputs = {part: made[name] for part, name in task.inputs.items()}
    units.make("unit", "laboratory", task.student, inputs)


def in_turn(task: NeuralTask, on_share: OnShare) -> InTurn:
    """With the shares of the time that its units take."""
    parts = {**task.origins, "unit": task.student}
    return InTurn({name: float(num_updates(NeuralTask(part, {}, {}))) for name, part in parts.items()}, on_share)


def num_updates(task: NeuralTask) -> int:
    """Of the student and of the critics."""
    return task.student.training.num_steps * (1 + task.student.loss.critic_updates)


def tables(process: str, students: Measured, biases: Iterable[Metrics]) -> dict[str, list[Row]]:
    """By the name of the file."""
    rows: dict[str, list[Row]] = {"neural.csv": [], "neural_modes.csv": [], "neural_steps.csv": []}
    for (cell, seed), metrics in students.items():
        about = {"cell": cell, "process": process, "seed": seed}
        rows["neural.csv"] += (about | row for row in divergence_rows(metrics))
        rows["neural_modes.csv"] += (about | row for row in mode_rows(metrics))
        rows["neural_steps.csv"] += (about | row for row in step_rows(metrics))
    rows["estimators.csv"] = [
        {column: row[column] for column in OF_A_BIAS} for m in biases for row in m["estimates"]
    ]
    return rows


def divergence_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a divergence."""
    for divergence, found in metrics["divergences"].items():
        yield {"divergence": divergence, **{column: found[column] for column in ESTIMATED}}


def mode_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a component of data."""
    pairs = zip(metrics["shares"], metrics["data_shares"], strict=True)
    for mode, (share, data_share) in enumerate(pairs):
        yield {"mode": mode, "share": share, "data_share": data_share}


def step_rows(metrics: Metrics) -> Iterator[Row]:
    """A row a frame, for contexts of both kinds; none for a student that makes all frames at once."""
    for contexts, steps in metrics["steps"].items():
        for frame, found in enumerate(steps):
            yield {"contexts": contexts, "frame": frame, **{column: found[column] for column in ESTIMATED}}
