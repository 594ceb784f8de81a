"""One measurement of a loss that regresses a flow map: train a student of lines, and see what it makes of noise."""

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.processes import Process
from pipeline.interfaces import Progress
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.flow_map import STUDENT, check_flow_map
from pipeline.laboratory.flow_map_students import GaussianFlow, LineByLevel
from pipeline.laboratory.measure import ONE_STEP, settle
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.loss import Loss
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import check_student
from pipeline.rules import at_least
from pipeline.streams import stream_seed
from pipeline.training.loop import TrainingSpec, TrainState
from pipeline.unit import Metrics


@dataclass(frozen=True)
class MeasureFlowMap:
    """Train a student on a process of one frame or two through the training loop of the main chain.

    A consistency loss meets a line at every level of its grid, which must begin at pure noise; mean flow meets the
    flow of a Gaussian. The teacher, where there is one, is the denoiser of data in closed form, which sees what the
    student sees. student: that whose parameters the frames have which are made of noise. num_clips: of data, drawn
    once.
    """

    process: Process
    student: str
    method: Method
    loss: Loss
    training: TrainingSpec
    seed: int
    num_threads: int = 1
    num_clips: int = 2**19

    def __post_init__(self) -> None:
        num_frames = self.process.num_frames
        check_student(self.student, num_frames)
        check_flow_map(self.method, self.loss, num_frames)
        if self.student != STUDENT[num_frames]:
            raise ValueError(f"student must be {STUDENT[num_frames]} for a flow map of lines, got {self.student}")
        at_least(1, num_clips=self.num_clips)
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
        data, student = self.process.law, self._student()
        teacher = ExactDenoiser(lambda: data, self.method.attention) if self.loss.needs_teacher else None
        return (
            yield from settle(
                TrainState(student, self.loss.critics(teacher), self.training),
                data,
                self.student,
                student.of_noise,
                method=self._method(),
                loss=self.loss,
                seed=self.seed,
                num_clips=self.num_clips,
            )
        )

    def _student(self) -> LineByLevel | GaussianFlow:
        data, attention = self.process.law, self.method.attention
        match self.loss:
            case ConsistencyTraining(grid=grid) | ConsistencyDistillation(grid=grid):
                noises_contexts = isinstance(self.method, DiffusionForcing)
                return LineByLevel(grid, data, attention, noises_contexts=noises_contexts)
            case _:
                return GaussianFlow(data.num_frames, attention)

    def _method(self) -> Method:
        """Lines are asked at levels of their grid alone, of which pure noise is one; a flow at any level."""
        on_grid = isinstance(self.loss, ConsistencyTraining | ConsistencyDistillation)
        if on_grid and isinstance(self.method, Bidirectional | TeacherForcing | DiffusionForcing):
            return dataclasses.replace(self.method, sampler=ONE_STEP)
        return self.method
