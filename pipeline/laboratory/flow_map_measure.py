"""One measurement of a loss that regresses a flow map: train a student of lines, and see what it makes of noise."""

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.processes import Process
from pipeline.data.processes_mixture import GaussianMixture, IndependentPixels
from pipeline.interfaces import Progress
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.flow_map import STUDENT, check_flow_map
from pipeline.laboratory.flow_map_students import GaussianFlow, LineByLevel
from pipeline.laboratory.measure import ONE_STEP, SETTLED, mean_of
from pipeline.laboratory.reached import Standing
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.loss import Loss
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.method import Method
from pipeline.models.linear_gaussian import STUDENTS, check_student
from pipeline.rules import at_least
from pipeline.streams import stream, stream_seed
from pipeline.training.loop import TrainingSpec, TrainState, train
from pipeline.unit import Metrics


@dataclass(frozen=True)
class MeasureFlowMap:
    """Train a student on a process of one frame through the training loop of the main chain.

    A consistency loss meets a line at every level of its grid, which must begin at pure noise; mean flow meets the
    flow of a Gaussian. The teacher, where there is one, is the denoiser of data in closed form. num_clips: of data,
    drawn once.
    """

    process: Process
    method: Method
    loss: Loss
    training: TrainingSpec
    seed: int
    num_threads: int = 1
    num_clips: int = 2**19

    def __post_init__(self) -> None:
        check_student(STUDENT, self.process.num_frames)
        check_flow_map(self.loss)
        at_least(1, num_clips=self.num_clips)
        if not isinstance(self.method, Bidirectional):
            raise ValueError(f"method must be Bidirectional for one frame, got {type(self.method).__name__}")
        if isinstance(self.loss, ConsistencyTraining | ConsistencyDistillation):
            spacing = self.loss.grid.spacing
            if spacing.range[0] != -torch.inf:
                raise ValueError(f"grid.spacing must begin at pure noise, of which frames are made, got {spacing}")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """Train anew, and report what the student makes of noise every `report_every` steps.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        law, config = self.process.law, self.training
        student = self._student(law)
        critics = self.loss.critics(ExactDenoiser(lambda: law) if self.loss.needs_teacher else None)
        assert isinstance(self.method, Bidirectional)
        state, method = TrainState(student, critics, config), dataclasses.replace(self.method, sampler=ONE_STEP)
        clips = IndependentPixels(law).sample(self.num_clips, stream(self.seed, "clips"))
        path: list[dict[str, float]] = []
        yield Progress(0, config.num_steps)
        for report in train(state, clips, method=method, loss=self.loss, seed=self.seed):
            path.append(student.of_noise())
            if report.step % config.report_every == 0 or report.step == config.num_steps:
                values = {name: value.item() for name, value in report.metrics.items()}
                yield Progress(report.step, config.num_steps, {**path[-1], **values})
        settled = mean_of(path[-max(1, round(SETTLED * len(path))) :])
        reached = Standing(law).of(STUDENTS[STUDENT], settled)
        return {"parameters": settled, **dataclasses.asdict(reached)}

    def _student(self, law: GaussianMixture) -> LineByLevel | GaussianFlow:
        match self.loss:
            case ConsistencyTraining(grid=grid) | ConsistencyDistillation(grid=grid):
                return LineByLevel(grid, law)
            case _:
                return GaussianFlow()
