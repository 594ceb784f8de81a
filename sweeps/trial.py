"""What one task of a sweep is: a cell trained and measured, or what cells start from, only measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.evaluate import Evaluate
from pipeline.grid_run import CellUnits
from pipeline.sweep.price import MeasurePrice
from pipeline.training.cell import TrainCell
from sweeps.parallel import OnShare
from sweeps.runner import PARTS, InTurn, Made

SHARES = {"train": 0.7, "evaluate": 0.3}  # of the time, on the average over cells
NUM_SHOWN = 4  # clips that are kept of every task
CURVES = ("student_loss", "critic_loss", "grad_norm")
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """origin: the student that training starts from, or that is measured. artifacts: of the run."""

    work: CellUnits | Evaluate
    origin: Path
    artifacts: Path

    @property
    def train_inputs(self) -> dict[str, Path]:
        """Of the training."""
        assert isinstance(self.work, CellUnits)
        return inputs_of_training(self.work, self.origin, self.artifacts)

    @property
    def train(self) -> TrainCell | None:
        """The training, where there is one."""
        return self.work.train if isinstance(self.work, CellUnits) else None

    @property
    def has_critics(self) -> bool:
        """Whether other networks learn beside the student."""
        return self.train is not None and self.train.loss.critic_updates > 0

    @property
    def num_updates(self) -> int:
        """Of the student and of its critics; of what is only measured as if it were one."""
        if self.train is None:
            return 1
        return self.train.training.num_steps * (1 + self.train.loss.critic_updates)

    def measured(self, student: Path) -> dict[str, Path]:
        """Inputs of the evaluation of this student."""
        names = {"clips": "prepare", "features": "features", "codec": "codec"}
        return {**{name: self.artifacts / stage for name, stage in names.items()}, "student": student}


@dataclass(frozen=True)
class PriceTask:
    """What a step of a cell costs."""

    work: MeasurePrice
    inputs: Mapping[str, Path]


@dataclass(frozen=True)
class Result:
    """What the files of a task's units say, its curve, and its first clips (N, T, H, W, C)."""

    made: Made
    curve: list[Row]
    clips: np.ndarray

    @property
    def excess(self) -> float:
        """FVD minus that of real clips, by which cells are ranked; lower is better."""
        return self.made["evaluate"]["metrics"]["fvd"]["excess"]


def inputs_of_training(units: CellUnits, origin: Path, artifacts: Path) -> dict[str, Path]:
    """The latents, where the student starts, and the teacher that its loss asks."""
    inputs = {"codec": artifacts / "codec", "init": origin}
    if units.teacher is not None:
        inputs["teacher"] = artifacts / "teacher" / units.teacher
    return inputs


def make(task: Task, on_share: OnShare) -> Result:
    """Train and evaluate a cell; evaluate a start."""
    units, student, directories = InTurn(SHARES, on_share), task.origin, {}
    if isinstance(task.work, CellUnits):
        directories["train"] = units.make("train", "cell", task.work.train, task.train_inputs)
        student = directories["train"] / "out"
    evaluate = task.work.evaluate if isinstance(task.work, CellUnits) else task.work
    directories["evaluate"] = units.make("evaluate", "evaluate", evaluate, task.measured(student))
    return read_result(directories)


def measure_price(task: PriceTask, on_share: OnShare) -> dict[str, Any]:
    """The metrics of the unit."""
    units = InTurn({"price": 1.0}, on_share)
    units.make("price", "price", task.work, task.inputs)
    return units.made["price"]["metrics"]


def read_result(directories: Mapping[str, Path]) -> Result:
    """Of finished units, by name."""
    made = {
        name: {part: json.loads((directory / f"{part}.json").read_text()) for part in PARTS}
        for name, directory in directories.items()
    }
    curve = []
    if "train" in directories:
        curve = [json.loads(line) for line in (directories["train"] / "curve.jsonl").read_text().splitlines()]
    with np.load(directories["evaluate"] / "show" / "samples.npz") as shown:
        return Result(made, curve, shown["generated"][:NUM_SHOWN])
