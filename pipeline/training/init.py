"""Where a causal student's weights come from: nothing, its teacher, or a first regression on its teacher."""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.flow_map import SOLVERS
from pipeline.diffusion.weighting import PredictionL2
from pipeline.interfaces import Progress
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.l2 import L2
from pipeline.methods.on_trajectories import OnTrajectories
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.denoiser import Denoiser, DenoiserSpec, load_denoiser, save_denoiser
from pipeline.rules import at_least, one_of
from pipeline.streams import stream_seed
from pipeline.training.cell import TrainCell
from pipeline.training.loop import TrainingSpec
from pipeline.training.trajectories import MakeTrajectories
from pipeline.unit import Metrics, Work, digest_of

CONTEXTS = {"causal": "clean", "bidirectional": "noisy"}  # of the regression after each teacher


@dataclass(frozen=True)
class Untrained:
    """Random weights, those with which a cell of this seed would start. Inputs: `codec`."""

    denoiser: DenoiserSpec
    seed: int

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Draw them."""
        torch.manual_seed(stream_seed(self.seed, "weights"))
        student = Denoiser(self.denoiser)
        save_denoiser(student, directory / "out", latents=digest_of(inputs["codec"] / "codec.json"))
        yield Progress(1, 1)
        return {"student_updates": 0}


@dataclass(frozen=True)
class FromTeacher:
    """A teacher's weights as they are, under causal attention. Inputs: `codec` and `teacher`."""

    chunk_len: int  # frames that see each other

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Copy them. Raises ValueError where the teacher speaks other latents."""
        latents = digest_of(inputs["codec"] / "codec.json")
        teacher = load_denoiser(inputs["teacher"], latents=latents)
        backbone = dataclasses.replace(teacher.spec.backbone, attention="causal", chunk_len=self.chunk_len)
        student = Denoiser(dataclasses.replace(teacher.spec, backbone=backbone))
        student.load_state_dict(teacher.state_dict())
        save_denoiser(student, directory / "out", latents=latents)
        yield Progress(1, 1)
        return {"student_updates": 0}


class Setting(NamedTuple):
    """What every student of a run has in common."""

    denoiser: DenoiserSpec  # causal
    sampler: Sampler  # in how few steps it will be asked
    seed: int
    num_threads: int

    def cell(self, method: Any, loss: Any, training: TrainingSpec) -> TrainCell:
        """Train such a student. Any: pyright takes no class variable for the property of a protocol."""
        return TrainCell(method, loss, self.denoiser, training, self.seed, self.num_threads)


class Unit(NamedTuple):
    """One piece of work. reads: for each of its inputs what it is, one of GIVEN or the name of an earlier unit."""

    name: str
    kind: str  # under which run_unit keeps it
    work: Work
    reads: Mapping[str, str]

    def inputs(self, products: Mapping[str, Path]) -> dict[str, Path]:
        """Its inputs, from the products that there are by name."""
        return {name: products[source] for name, source in self.reads.items()}


GIVEN = ("codec", "causal", "bidirectional")  # latents, and both teachers


@runtime_checkable
class Init(Protocol):
    """How a causal student begins."""

    def units(self, setting: Setting) -> tuple[Unit, ...]:
        """In order; what the last one makes is the student. Raises ValueError where they cannot be."""
        ...


@dataclass(frozen=True)
class NoInit:
    """Random weights."""

    def units(self, setting: Setting) -> tuple[Unit, ...]:
        return (Unit("student", "init", Untrained(setting.denoiser, setting.seed), {"codec": "codec"}),)


@dataclass(frozen=True)
class TeacherInit:
    """The causal teacher's weights."""

    def units(self, setting: Setting) -> tuple[Unit, ...]:
        work = FromTeacher(setting.denoiser.backbone.chunk_len)
        return (Unit("student", "init", work, {"codec": "codec", "teacher": "causal"}),)


@dataclass(frozen=True)
class OdeRegression:
    """The causal teacher's weights, then regression on the ends of a teacher's stored trajectories.

    From a teacher of full attention, as CausVid, arXiv:2412.07772, section 4.3, the ends also depend on the noise
    of frames that a causal student is yet to make: the best it can answer is their mean. From the causal one each
    end follows from what the student sees. Causal Forcing, arXiv:2602.02214.
    """

    teacher_attention: str
    training: TrainingSpec
    num_clips: int = 2048
    num_steps: int = 16  # of the teacher's flow, a multiple of the sampler's
    solver: str = "heun"

    def __post_init__(self) -> None:
        one_of(CONTEXTS, teacher_attention=self.teacher_attention)
        one_of(SOLVERS, solver=self.solver)
        at_least(1, num_clips=self.num_clips, num_steps=self.num_steps)
        if self.training.adaptive is not None:
            raise ValueError("training.adaptive must be null: the levels are those of the sampler")

    def units(self, setting: Setting) -> tuple[Unit, ...]:
        trajectories = self.trajectories(setting)
        method = OnTrajectories(CONTEXTS[self.teacher_attention], setting.sampler)
        train = setting.cell(method, L2(PredictionL2("x0")), self.training)  # every level alike
        reads = {"codec": "codec", "init": "causal", "trajectories": trajectories.name}
        return trajectories, Unit("student", "init", train, reads)

    def trajectories(self, setting: Setting, *, split: str = "train", num_clips: int | None = None) -> Unit:
        """The trajectories alone, for training or held out."""
        work = MakeTrajectories(
            setting.sampler,
            solver=self.solver,
            num_steps=self.num_steps,
            num_clips=num_clips or self.num_clips,
            split=split,
            seed=setting.seed,
            num_threads=setting.num_threads,
        )
        reads = {"codec": "codec", "teacher": self.teacher_attention}
        return Unit(f"{self.teacher_attention}_{split}", "trajectories", work, reads)


@dataclass(frozen=True)
class ConsistencyInit:
    """The causal teacher's weights, then causal consistency distillation. Causal Forcing++, arXiv:2605.15141.

    The cell teacher forcing x consistency distillation: its pairs are data, noised, and steps of the causal teacher
    after clean frames, so that no trajectory is stored.
    """

    training: TrainingSpec
    loss: ConsistencyDistillation = field(default_factory=ConsistencyDistillation)

    def units(self, setting: Setting) -> tuple[Unit, ...]:
        method = TeacherForcing(setting.denoiser.backbone.chunk_len, setting.sampler)
        train = setting.cell(method, self.loss, self.training)
        reads = {"codec": "codec", "init": "causal", "teacher": "causal"}
        return (Unit("student", "init", train, reads),)


INITS: dict[str, type[Init]] = {
    "none": NoInit,
    "teacher": TeacherInit,
    "ode_regression": OdeRegression,
    "consistency": ConsistencyInit,
}


def make_all(
    units: Sequence[Unit], given: Mapping[str, Path], make: Callable[[Unit, Mapping[str, Path]], Path]
) -> dict[str, Path]:
    """The products of all units by name, beside those that were given. make: runs a unit; returns its directory."""
    products = dict(given)
    for unit in units:
        products[unit.name] = make(unit, unit.inputs(products)) / "out"
    return products
