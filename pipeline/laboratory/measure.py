"""One measurement: train a student of few parameters on a process of known density, and see where it settles."""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from pipeline.data.processes import Process
from pipeline.data.processes_mixture import GaussianMixture, IndependentPixels
from pipeline.diffusion.autoregress import Sampler
from pipeline.grid import Cell
from pipeline.interfaces import Progress
from pipeline.laboratory.critics import CRITICS, Solved, exact_critics, learned_critics
from pipeline.laboratory.laws import detached, judged_law
from pipeline.laboratory.moments import of_moments
from pipeline.laboratory.reached import Standing
from pipeline.laboratory.students import DenoisingStudent, GeneratingStudent
from pipeline.losses.add import Add
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.losses.loss import CriticLoss, Loss
from pipeline.losses.pagoda import Pagoda
from pipeline.losses.sid import Sid
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import STUDENTS, LinearGaussianSpec, LinearGaussianStudent, check_student
from pipeline.rules import at_least, one_of
from pipeline.streams import stream, stream_seed
from pipeline.training.loop import TrainingSpec, TrainState, train
from pipeline.unit import Metrics

MEASURED = (
    L2,
    Dmd,
    Gan,
    Sid,
    FDistill,
    Add,
    Kd,
    Pagoda,
)  # losses that ask nothing but frames of one step, or a denoiser
ONE_STEP = Sampler(num_steps=1)  # of students that make their frames
SETTLED = 0.5  # last share of the steps, over which parameters are averaged


@dataclass(frozen=True)
class Measure:
    """Train `student` on `process` by `method` x `loss` through the training loop of the main chain.

    A loss on data meets the denoiser of the student's own law, at the levels of the continuum; any other loss the
    frames that the student makes in one step. It starts from the first two moments of data. critics: "exact", the
    closed forms at every step; "learned", small networks of `critic_width`, for what is said of the student.
    num_clips: of data, drawn once.
    """

    process: Process
    student: str
    method: Method
    loss: Loss
    critics: str
    training: TrainingSpec
    seed: int
    num_threads: int = 1
    num_clips: int = 2**19
    critic_width: int = 64

    def __post_init__(self) -> None:
        check_student(self.student, self.process.num_frames)
        one_of(CRITICS, critics=self.critics)
        at_least(1, num_clips=self.num_clips, critic_width=self.critic_width)
        if self.loss.needs_target and not self.method.provides_target:
            raise ValueError(
                f"method must provide a target for the loss {type(self.loss).__name__}, got "
                f"{type(self.method).__name__}"
            )
        if not isinstance(self.loss, MEASURED):
            known = ", ".join(kind.__name__ for kind in MEASURED)
            raise ValueError(f"loss must be one of {known}, got {type(self.loss).__name__}")
        if self.critics == "learned" and not isinstance(self.loss, CriticLoss):
            raise ValueError(f"critics must be exact for a loss that trains none, got {type(self.loss).__name__}")
        if isinstance(self.method, SelfForcing) and self.method.sampler.num_steps != 1:
            raise ValueError(f"sampler.num_steps must be 1 here, got {self.method.sampler.num_steps}")

    @property
    def makes_frames(self) -> bool:
        """Whether the student is a generator: its loss is not the denoising loss on data."""
        return not self.loss.bounds_likelihood

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """Train anew, and report the parameters every `report_every` steps.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        law = self.process.law
        own = self._start(law)
        state, loss, method = self._state(own, law)
        return (
            yield from settle(
                state,
                law,
                self.student,
                lambda: parameters_of(own),
                method=method,
                loss=loss,
                seed=self.seed,
                num_clips=self.num_clips,
            )
        )

    def _start(self, law: GaussianMixture) -> LinearGaussianStudent:
        spec = LinearGaussianSpec(self.student, law.num_frames)
        values = dict(zip(STUDENTS[self.student].names, of_moments(law, STUDENTS[self.student]), strict=True))
        return LinearGaussianStudent(spec, **values)

    def _state(self, own: LinearGaussianStudent, law: GaussianMixture) -> tuple[TrainState, Loss, Method]:
        """The student and its critics, and the loss and the method as they meet them."""
        loss, method = self.loss, self.method
        if self.makes_frames and isinstance(method, Bidirectional | TeacherForcing | DiffusionForcing):
            method = dataclasses.replace(method, sampler=ONE_STEP)
        kind = GeneratingStudent if self.makes_frames else DenoisingStudent
        student = kind(own, method.attention)
        attention = "causal" if Cell.of(method, loss).teacher == "causal" else "full"
        if self.critics == "exact":
            critics = exact_critics(
                loss, law, lambda: judged_law(method, detached(own.chain), law), attention=attention
            )
            loss = cast(Loss, Solved(loss)) if isinstance(loss, CriticLoss) else loss  # its facts are properties
        else:
            of_next_frame = isinstance(method, TeacherForcing)
            critics = learned_critics(
                loss, law, self.critic_width, of_next_frame=of_next_frame, attention=attention
            )
        return TrainState(student, critics, self.training), loss, method


def settle(
    state: TrainState,
    data: GaussianMixture,
    form: str,
    parameters: Callable[[], dict[str, float]],
    *,
    method: Method,
    loss: Loss,
    seed: int,
    num_clips: int,
) -> Generator[Progress, None, Metrics]:
    """Train on `num_clips` of data, drawn once; report every `report_every` steps, and where the parameters settle.

    form: the law that they are of, a name in STUDENTS.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    config = state.config
    clips = IndependentPixels(data).sample(num_clips, stream(seed, "clips"))
    path: list[dict[str, float]] = []
    yield Progress(0, config.num_steps)
    for report in train(state, clips, method=method, loss=loss, seed=seed):
        path.append(parameters())
        if report.step % config.report_every == 0 or report.step == config.num_steps:
            values = {name: value.item() for name, value in report.metrics.items()}
            yield Progress(report.step, config.num_steps, {**path[-1], **values})
    settled = mean_of(path[-max(1, round(SETTLED * len(path))) :])
    reached = Standing(data).of(STUDENTS[form], settled)
    return {"parameters": settled, **dataclasses.asdict(reached)}


def parameters_of(student: LinearGaussianStudent) -> dict[str, float]:
    """By name; a standard deviation has no sign."""
    values = {name: student.values[name].item() for name in STUDENTS[student.spec.student].names}
    return {name: abs(value) if name.startswith("s") else value for name, value in values.items()}


def mean_of(path: list[dict[str, float]]) -> dict[str, float]:
    """Of every parameter over some steps."""
    return {name: sum(at[name] for at in path) / len(path) for name in path[0]}
