"""What one task of a sweep is: a cell trained and measured, or what cells start from, only measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.evaluate import Evaluate
from pipeline.grid_run import CellUnits
from pipeline.interfaces import OnProgress, no_progress
from pipeline.placed import placed
from pipeline.sweep.plan import Resources
from pipeline.sweep.price import MeasurePrice
from pipeline.training.cell import TrainCell
from pipeline.training.placed import Placed
from pipeline.unit import Work
from sweeps import cluster
from sweeps.on_several import run_on_several
from sweeps.parallel import OnShare
from sweeps.runner import PARTS, InTurn, Made
from sweeps.storage import Storage

SHARES = {"train": 0.7, "evaluate": 0.3}  # of the time, on the average over cells
NUM_SHOWN = 4  # clips that are kept of every task
CURVES = ("student_loss", "critic_loss", "grad_norm")
MEASURED = ("clips", "features", "codec")  # what an evaluation reads beside the student
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """inputs: what its units read, by role: clips, features, codec, init (where training starts, or what is
    measured) and, where a loss asks one, teacher. shared: the same as the storage knows them, where there is one.
    """

    work: CellUnits | Evaluate
    inputs: Mapping[str, Path]
    resources: Resources = field(default_factory=Resources)
    storage: Storage = field(default_factory=Storage)
    shared: Mapping[str, str] | None = None

    @property
    def train(self) -> TrainCell | None:
        """The training, where there is one."""
        return self.work.train if isinstance(self.work, CellUnits) else None

    @property
    def evaluate(self) -> Work:
        """The evaluation, where the student is sampled."""
        return self._placed(self.work.evaluate if isinstance(self.work, CellUnits) else self.work)

    @property
    def placed_train(self) -> Work:
        """The training, where it runs."""
        assert self.train is not None
        return self._placed(self.train)

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

    def _placed(self, work: TrainCell | Evaluate) -> Work:
        of = self.resources
        device = "cuda" if of.num_gpus else "cpu"
        return placed(work, device=device, precision=of.precision, compile=of.compile, num_workers=of.num_workers)


@dataclass(frozen=True)
class PriceTask:
    """What a step of a cell costs; the rest as of a Task."""

    work: MeasurePrice
    inputs: Mapping[str, Path]
    storage: Storage = field(default_factory=Storage)
    shared: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Result:
    """What the files of a task's units say, its curve, and its first clips, uint8 (N, T, C, H, W)."""

    made: Made
    curve: list[Row]
    clips: np.ndarray

    @property
    def excess(self) -> float:
        """FVD minus that of real clips, by which cells are ranked; lower is better."""
        return self.made["evaluate"]["metrics"]["fvd"]["excess"]


def inputs_of_cell(artifacts: Path, origin: Path, teacher: str | None) -> dict[str, Path]:
    """By role. origin: where training starts; teacher: the name of the one that the loss asks."""
    inputs = {
        name: artifacts / stage for name, stage in zip(MEASURED, ("prepare", "features", "codec"), strict=True)
    }
    inputs["init"] = origin
    return inputs if teacher is None else {**inputs, "teacher": artifacts / "teacher" / teacher}


def inputs_of_training(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """Those that a training reads."""
    return {name: path for name, path in inputs.items() if name in ("codec", "init", "teacher")}


def inputs_of_evaluation(inputs: Mapping[str, Path], student: Path) -> dict[str, Path]:
    """Those that the evaluation of this student reads."""
    return {**{name: inputs[name] for name in MEASURED}, "student": student}


def make(task: Task, on_share: OnShare) -> Result:
    """Train and evaluate a cell; evaluate a start."""

    def run(stage: str, work: Work, inputs: Mapping[str, Path], *, on_progress: OnProgress = no_progress) -> Path:
        if isinstance(work, Placed) and work.num_workers > 1:
            each = cluster.Resources(task.resources.num_cpus, task.resources.num_gpus)
            return run_on_several(stage, work, inputs, resources=each, on_progress=on_progress)
        return task.storage.run_unit(stage, work, inputs, on_progress=on_progress)

    units, directories = InTurn(SHARES, on_share, run), {}
    inputs = located(task)
    student = inputs["init"]
    if task.train is not None:
        directories["train"] = units.make("train", "cell", task.placed_train, inputs_of_training(inputs))
        student = directories["train"] / "out"
    directories["evaluate"] = units.make(
        "evaluate", "evaluate", task.evaluate, inputs_of_evaluation(inputs, student)
    )
    return read_result(directories)


def located(task: Task | PriceTask) -> Mapping[str, Path]:
    """Its inputs where they are on this node."""
    return task.inputs if task.shared is None else task.storage.inputs(task.shared)


def measure_price(task: PriceTask, on_share: OnShare) -> dict[str, Any]:
    """The metrics of the unit."""
    units = InTurn({"price": 1.0}, on_share, task.storage.run_unit)
    units.make("price", "price", task.work, located(task))
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
