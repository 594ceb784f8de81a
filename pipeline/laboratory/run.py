"""The laboratory as it is run: which cells are measured on which processes, and by which rules they are judged."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.data.processes import LinearGaussian, Process
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.critics import CRITICS
from pipeline.laboratory.exposure import Exposure
from pipeline.laboratory.flow_map import FlowMapLoss
from pipeline.laboratory.flow_map_measure import MeasureFlowMap
from pipeline.laboratory.hidden_noise import HiddenNoise
from pipeline.laboratory.measure import Measure
from pipeline.laboratory.neural_run import NeuralRun, NeuralTask
from pipeline.laboratory.verdicts import Rules
from pipeline.losses.dmd import Dmd
from pipeline.losses.l2 import L2
from pipeline.losses.loss import Loss
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import check_student
from pipeline.rules import above, at_least, one_of, within
from pipeline.training.loop import TrainingSpec


@dataclass(frozen=True)
class Setting:
    """A process of known density, and the student that is held to it: too small to fit. about: for people."""

    process: Process
    student: str
    about: str

    def __post_init__(self) -> None:
        check_student(self.student, self.process.num_frames)


@dataclass(frozen=True)
class LaboratoryCell:
    """A method with a loss, measured on processes with exact critics, and on some of them with learned ones.

    update_factor: how many times the updates of the laboratory's training its students take, which settle late.
    """

    method: Method
    loss: Loss
    processes: tuple[str, ...]
    learned: tuple[str, ...] = ()
    update_factor: int = 1

    def __post_init__(self) -> None:
        at_least(1, update_factor=self.update_factor)
        if not self.processes:
            raise ValueError("processes must name at least one, got none")
        for name in self.learned:
            one_of(self.processes, learned=name)
        if isinstance(self.method, DiffusionForcing) and not isinstance(self.method.noise_levels, Independent):
            raise ValueError(f"method.noise_levels must be independent here, got {self.method.noise_levels}")
        levels = self.method.noise_levels.num_levels if isinstance(self.method, DiffusionForcing) else None
        if levels is not None and not self.loss.bounds_likelihood:
            raise ValueError(
                f"method.noise_levels.num_levels must be null under {type(self.loss).__name__}, whose students "
                f"make frames in one step, got {levels}"
            )


class Key(NamedTuple):
    """One measurement: a cell by its name, a process, what the critics are, and the seed."""

    cell: str
    process: str
    critics: str
    seed: int


@dataclass(frozen=True)
class ExposureRun:
    """Students of x_f = slope x_{f-1} + noise, of variance 1, rolled out by a sampler that adds hidden noise.

    Trained on data by teacher forcing and by diffusion forcing, whose contexts then are noised, by each of
    `context_variances`; and by self forcing with dmd, which meets the hidden noise in training.
    """

    slope: float = 0.9
    hidden_variance: float = 0.05
    context_variances: tuple[float, ...] = (0.05, 0.1, 0.2)
    trained_frames: int = 4
    num_frames: int = 24
    num_rollouts: int = 65536

    def __post_init__(self) -> None:
        within(-1, 1, open_low=True, open_high=True, slope=self.slope)
        at_least(0, hidden_variance=self.hidden_variance)
        above(0, **{f"context_variances[{k}]": value for k, value in enumerate(self.context_variances)})
        at_least(2, trained_frames=self.trained_frames, num_frames=self.num_frames, num_rollouts=self.num_rollouts)

    def sampler(self, context_variance: float = 0.0) -> Sampler:
        """One step a frame after one frame of context, noised by sigma^2 / alpha^2 = context_variance."""
        ratio = context_variance**0.5
        step = HiddenNoise(self.hidden_variance**0.5)
        return Sampler(num_steps=1, step=step, window=1, context_noise=ratio / (1 + ratio))

    def units(self, training: TrainingSpec, seed: int, num_clips: int) -> dict[str, Exposure]:
        """By the student; students and samplers have the names of the roll-outs."""
        process = LinearGaussian((self.slope,), self.trained_frames)
        own = self.sampler()

        noised = {f"diffusion_forcing-context_{v:g}": self.sampler(v) for v in self.context_variances}

        def unit(method: Any, loss: Any, **samplers: Sampler) -> Exposure:  # a type checker wants ClassVars of both
            measure = Measure(process, "tied", method, loss, "exact", training, seed, num_clips=num_clips)
            return Exposure(measure, samplers, self.num_frames, self.num_rollouts)

        dmd = Dmd(space="score", normaliser=False)
        units = (
            unit(TeacherForcing(), L2(), teacher_forcing=own),
            unit(DiffusionForcing(), L2(), diffusion_forcing=own, **noised),
            unit(SelfForcing(own, detach_context=False), dmd, self_forcing=own),
            unit(SelfForcing(own), dmd, **{"self_forcing-detached": own}),
        )
        return {next(iter(one.samplers)): one for one in units}


@dataclass(frozen=True)
class LaboratoryRun:
    """Cells, how long each trains, and the rules of the verdict, which stand before the run.

    settings: processes and their students, by name. processes: of these, the ones to which the cells are held.
    training: with exact critics. learned_training: with learned ones, which lag behind a student that moves fast.
    batch_size of both is of clips of one pixel. num_clips: of data, from which batches are drawn.
    """

    settings: dict[str, Setting]
    processes: tuple[str, ...]
    cells: dict[str, LaboratoryCell]
    training: TrainingSpec
    learned_training: TrainingSpec
    neural: NeuralRun
    rules: Rules = field(default_factory=Rules)
    exposure: ExposureRun = field(default_factory=ExposureRun)
    num_seeds: int = 3
    num_clips: int = 2**19
    critic_width: int = 64

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError("cells must name at least one, got none")
        if not self.processes:
            raise ValueError("processes must name at least one, got none")
        for name in self.processes:
            one_of(self.settings, processes=name)
        for name, cell in self.cells.items():
            for process in cell.processes:
                one_of(self.settings, **{f"cells.{name}.processes": process})
        one_of(self.settings, **{"neural.process": self.neural.process})
        self.neural_tasks(0)
        at_least(1, num_seeds=self.num_seeds, num_clips=self.num_clips, critic_width=self.critic_width)
        for name, training in (("training", self.training), ("learned_training", self.learned_training)):
            if training.adaptive is not None:
                raise ValueError(f"{name}.adaptive must be null: it is for neural students alone")
        for key in self.keys_of(0):
            try:
                self.measure(key)
            except ValueError as error:
                raise ValueError(f"cells.{key.cell} on {key.process}: {error}") from error

    def neural_tasks(self, seed: int) -> dict[str, NeuralTask]:
        """Of one seed, by cell. Raises ValueError for a process that neural students cannot have."""
        process = self.settings[self.neural.process].process
        try:
            return self.neural.tasks(process, seed)
        except ValueError as error:
            raise ValueError(f"neural.{error}") from error

    def keys(self, seed: int) -> Iterator[Key]:
        """Every measurement; seeds are counted from `seed`."""
        for number in range(self.num_seeds):
            yield from self.keys_of(seed + number)

    def keys_of(self, seed: int) -> Iterator[Key]:
        """Those of one seed."""
        for name, cell in self.cells.items():
            for critics in CRITICS:
                for process in cell.processes if critics == "exact" else cell.learned:
                    if process in self.processes:
                        yield Key(name, process, critics, seed)

    def measure(self, key: Key) -> Measure | MeasureFlowMap:
        """The work of one measurement."""
        cell, setting = self.cells[key.cell], self.settings[key.process]
        training = {"exact": self.training, "learned": self.learned_training}[key.critics]
        training = replace(training, num_steps=cell.update_factor * training.num_steps)
        if isinstance(cell.loss, FlowMapLoss):
            if key.critics == "learned":
                raise ValueError(
                    f"critics must be exact for a loss that trains none, got {type(cell.loss).__name__}"
                )
            return MeasureFlowMap(
                setting.process,
                setting.student,
                cell.method,
                cell.loss,
                training,
                key.seed,
                num_clips=self.num_clips,
            )
        return Measure(
            setting.process,
            setting.student,
            cell.method,
            cell.loss,
            key.critics,
            training,
            key.seed,
            num_clips=self.num_clips,
            critic_width=self.critic_width,
        )
