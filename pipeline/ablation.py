"""The ablation of the objective: teachers that differ in prediction, weighting and schedule alone."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import Weighting
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.loss_spread import LossSpread
from pipeline.rules import at_least
from pipeline.training.cell import TrainCell
from pipeline.training.loop import TrainingSpec


class Objective(NamedTuple):
    """What a teacher of the ablation is trained on: names of a prediction, a weighting and a schedule."""

    prediction: str
    weighting: str
    schedule: str

    def __str__(self) -> str:
        return " + ".join(self)


class Units(NamedTuple):
    """The work of one teacher, in order."""

    train: TrainCell
    evaluate: Evaluate
    spread: LossSpread


@dataclass(frozen=True)
class Ablation:
    """Every combination of predictions, weightings and schedules, each trained for equally many updates.

    num_clips: n of every measure of the evaluation. num_spread_clips: of the loss, for each schedule and law.
    """

    predictions: tuple[str, ...]
    weightings: dict[str, Weighting]
    schedules: dict[str, Schedule]
    training: TrainingSpec
    num_clips: int = 512
    num_spread_clips: int = 2048

    def __post_init__(self) -> None:
        axes = {"predictions": self.predictions, "weightings": self.weightings, "schedules": self.schedules}
        for name, entries in axes.items():
            if not entries:
                raise ValueError(f"{name} must name at least one, got none")
        if len(set(self.predictions)) < len(self.predictions):
            raise ValueError(f"predictions must be all different, got {', '.join(self.predictions)}")
        if self.training.adaptive is not None:
            raise ValueError("training.adaptive must be null: the schedules are compared as they are")
        at_least(2, num_clips=self.num_clips, num_spread_clips=self.num_spread_clips)

    def objectives(self) -> list[Objective]:
        """All combinations."""
        return [Objective(*names) for names in product(self.predictions, self.weightings, self.schedules)]
