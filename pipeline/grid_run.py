"""The grid as it is run: every cell that can be trained, from the shared teachers, by equally many updates."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.evaluation.evaluate import Evaluate
from pipeline.grid import Cell
from pipeline.losses.loss import Loss
from pipeline.methods.method import Method
from pipeline.rules import at_least
from pipeline.training.cell import TrainCell
from pipeline.training.loop import TrainingSpec
from pipeline.training.optimizer import OptimizerSpec


class CellUnits(NamedTuple):
    """The work of one cell, in order, and which teacher it asks."""

    train: TrainCell
    evaluate: Evaluate
    teacher: str | None


@dataclass(frozen=True)
class GridRun:
    """Methods and losses of which every product is trained, for training.num_steps updates of the student.

    critic_optimizers: of the losses whose critics learn otherwise than training.critic_optimizer says.
    teacher_attention: of the losses that ask another teacher than the one that follows from the cell.
    num_clips: n of every measure of the evaluation.
    """

    methods: dict[str, Method]
    losses: dict[str, Loss]
    training: TrainingSpec
    critic_optimizers: dict[str, OptimizerSpec] = field(default_factory=dict)
    teacher_attention: dict[str, str] = field(default_factory=dict)
    num_clips: int = 1024

    def __post_init__(self) -> None:
        for name, entries in (("methods", self.methods), ("losses", self.losses)):
            if not entries:
                raise ValueError(f"{name} must name at least one, got none")
        for name, entries in (
            ("critic_optimizers", self.critic_optimizers),
            ("teacher_attention", self.teacher_attention),
        ):
            for loss in entries:
                if loss not in self.losses:
                    raise ValueError(f"{name} must be of losses of the grid, {', '.join(self.losses)}, got {loss}")
        if self.training.adaptive is not None:
            raise ValueError("training.adaptive must be null: it is for the loss on data alone")
        at_least(2, num_clips=self.num_clips)

    def cells(self) -> list[Cell]:
        """Every product, those that are excluded too."""
        return [Cell(method, loss) for method in self.methods for loss in self.losses]
