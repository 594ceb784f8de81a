"""Neural students as the laboratory runs them: which cells, how long each trains, and where each begins."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.data.processes import Process
from pipeline.laboratory.estimators_bias import EstimatorBias
from pipeline.laboratory.neural import CRITIC_OF, NeuralStudent
from pipeline.losses.loss import Loss
from pipeline.methods.method import Method
from pipeline.models.backbone import BackboneSpec
from pipeline.rules import at_least, one_of
from pipeline.training.loop import TrainingSpec


@dataclass(frozen=True)
class NeuralCell:
    """A method with a loss. training: by its name in the run. init, critic: cells whose students begin these."""

    method: Method
    loss: Loss
    training: str
    init: str | None = None
    critic: str | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """The cells that it begins from, by their part."""
        return {part: cell for part, cell in (("init", self.init), ("critic", self.critic)) if cell is not None}


@dataclass(frozen=True)
class NeuralTask:
    """A student, and those that must be trained before it. inputs: which of them, by the name of its input."""

    student: NeuralStudent
    origins: Mapping[str, NeuralStudent]
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class NeuralRun:
    """Cells of neural students on clips of `num_frames` of a process, and the estimators that measure them.

    trainings: by the name by which cells ask for one; batch_size is of clips of one pixel. width, depth, num_heads:
    of the backbone. num_clips, num_paths, num_samples: see NeuralStudent. bias_samples, bias_repeats: of the
    estimators on pairs whose divergence is known.
    """

    cells: dict[str, NeuralCell]
    trainings: dict[str, TrainingSpec]
    process: str = "D"
    num_frames: int = 4
    width: int = 32
    depth: int = 2
    num_heads: int = 2
    num_seeds: int = 3
    num_clips: int = 2**16
    num_paths: int = 1024
    num_samples: int = 4096
    bias_samples: tuple[int, ...] = (512, 2048, 8192)
    bias_repeats: int = 4

    def __post_init__(self) -> None:
        at_least(1, num_seeds=self.num_seeds)
        for name, training in self.trainings.items():
            if training.adaptive is not None or training.label_dropout > 0:
                raise ValueError(f"trainings.{name} must have neither adaptive nor label_dropout here")
        for name, cell in self.cells.items():
            one_of(self.trainings, **{f"cells.{name}.training": cell.training})
            self._check_origins(name, cell)
        self.bias(0)

    def tasks(self, process: Process, seed: int) -> dict[str, NeuralTask]:
        """Of one seed, by cell: first those from which others begin. process: the one that `process` names.

        Raises:
            ValueError: a process of one frame, or a cell that cannot have it.
        """
        if process.num_frames == 1:
            raise ValueError(f"process must be one of several frames, got {self.process}")
        students = {name: self._student(process, name, seed) for name in self.cells}
        first = sorted(self.cells, key=lambda name: bool(self.cells[name].inputs))
        return {
            name: NeuralTask(
                students[name],
                {origin: students[origin] for origin in self.cells[name].inputs.values()},
                self.cells[name].inputs,
            )
            for name in first
        }

    def bias(self, seed: int) -> EstimatorBias:
        """The unit that says how far the estimators are off."""
        return EstimatorBias(seed, self.bias_samples, self.bias_repeats)

    def _student(self, process: Process, name: str, seed: int) -> NeuralStudent:
        cell = self.cells[name]
        try:
            return NeuralStudent(
                dataclasses.replace(process, num_frames=self.num_frames),
                cell.method,
                cell.loss,
                BackboneSpec(1, 1, 1, self.width, self.depth, self.num_heads),
                self.trainings[cell.training],
                seed,
                num_clips=self.num_clips,
                num_paths=self.num_paths,
                num_samples=self.num_samples,
            )
        except ValueError as error:
            raise ValueError(f"cells.{name}: {error}") from error

    def _check_origins(self, name: str, cell: NeuralCell) -> None:
        """Raises ValueError unless what a cell begins from is there, begins from no other, and fits."""
        for part, origin in cell.inputs.items():
            one_of(self.cells, **{f"cells.{name}.{part}": origin})
            if self.cells[origin].inputs:
                raise ValueError(f"cells.{name}.{part} must be a cell that begins from no other, got {origin}")
        if cell.loss.needs_teacher != (cell.critic is not None):
            raise ValueError(
                f"cells.{name}.critic must be given where the loss compares networks, and only there: "
                f"{type(cell.loss).__name__}, critic={cell.critic}"
            )
        if cell.critic is not None:
            wanted, found = CRITIC_OF[cell.method.teacher], self.cells[cell.critic].method.attention
            if found != wanted:
                raise ValueError(
                    f"cells.{name}.critic must have {wanted} attention under {type(cell.method).__name__}, got "
                    f"{cell.critic}, which has {found}"
                )
