"""Every parameter of the pipeline, and the unit of work that follows from them for each of its stages."""

import dataclasses
from dataclasses import dataclass

from pipeline.ablation import Ablation, Objective, Units
from pipeline.causal_forcing import CausalForcing
from pipeline.data.store import Prepare
from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.features import TrainFeatures
from pipeline.evaluation.loss_spread import LossSpread
from pipeline.grid import Cell
from pipeline.grid_run import CellUnits, GridRun
from pipeline.laboratory.run import LaboratoryRun
from pipeline.losses import LOSSES
from pipeline.losses.l2 import L2
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.models.codec import CodecSpec
from pipeline.models.denoiser import DenoiserSpec
from pipeline.rules import one_of
from pipeline.sweep.plan import START_PHASE, SweepRun, Trial
from pipeline.training.cell import TrainCell
from pipeline.training.codec import CodecTraining, TrainCodec
from pipeline.training.init import Init, Setting, Unit
from pipeline.training.loop import TrainingSpec

TEACHERS = {"causal": "causal", "bidirectional": "full"}  # each teacher's attention


@dataclass(frozen=True)
class CodecParams:
    """The frame autoencoder, and how it is trained."""

    network: CodecSpec
    training: CodecTraining


@dataclass(frozen=True)
class TeacherRun:
    """One teacher: how it is trained, and how it samples."""

    method: Method
    loss: Loss
    training: TrainingSpec
    sampler: Sampler


@dataclass(frozen=True)
class StudentParams:
    """The cells of one training stage: a method with several losses, and a run for each."""

    method: Method
    losses: dict[str, Loss]
    training: dict[str, TrainingSpec]
    teacher_attention: str | None = None  # of the teacher that the losses ask; None: the one that the cell needs


@dataclass(frozen=True)
class Checkpoint:
    """What is evaluated: the student of a stage's item. few_steps: a teacher, sampled as its students are."""

    stage: str
    item: str = ""  # of a stage that has several
    few_steps: bool = False

    @property
    def name(self) -> str:
        """Its key in `checkpoints`, and the item of stage evaluate."""
        return "-".join(filter(None, [self.stage, self.item, "few_steps" if self.few_steps else ""]))


@dataclass(frozen=True)
class Params:
    """Every parameter of the pipeline."""

    profile: str
    seed: int
    num_threads: int
    prepare: Prepare
    features: TrainFeatures
    codec: CodecParams | None
    denoiser: DenoiserSpec
    sampler: Sampler
    teacher: dict[str, TeacherRun]
    init: Init
    distill: StudentParams
    rollout: StudentParams
    evaluate: Evaluate
    checkpoints: dict[str, Checkpoint]
    ablation: Ablation
    grid: GridRun
    causal_forcing: CausalForcing
    laboratory: LaboratoryRun
    sweep: SweepRun

    def codec_unit(self) -> TrainCodec:
        """The work of stage codec."""
        codec, training = (self.codec.network, self.codec.training) if self.codec else (None, CodecTraining())
        return TrainCodec(codec=codec, training=training, seed=self.seed, num_threads=self.num_threads)

    def teacher_unit(self, attention: str) -> TrainCell:
        """The work of stage teacher: `causal` or `bidirectional`."""
        backbone = dataclasses.replace(self.denoiser.backbone, attention=TEACHERS[attention])
        denoiser = dataclasses.replace(self.denoiser, backbone=backbone)
        run = self.teacher[attention]
        return TrainCell(run.method, run.loss, denoiser, run.training, self.seed, self.num_threads)

    def init_units(self) -> tuple[Unit, ...]:
        """The work of stage init, in order; what the last unit makes is where causal students start."""
        return self.init.units(Setting(self.denoiser, self.sampler, self.seed, self.num_threads))

    @property
    def trains_init(self) -> bool:
        """Whether causal students start from weights that no teacher has, and that are measured."""
        return isinstance(self.init_units()[-1].work, TrainCell)

    def students(self, stage: str) -> StudentParams:
        """Those of stage distill or rollout."""
        return {"distill": self.distill, "rollout": self.rollout}[stage]

    def student_unit(self, stage: str, loss: str) -> TrainCell:
        """The work of stage distill or rollout, for one loss."""
        cells = self.students(stage)
        backbone = dataclasses.replace(self.denoiser.backbone, end_level=cells.losses[loss].needs_end_level)
        denoiser = dataclasses.replace(self.denoiser, backbone=backbone)
        return TrainCell(
            cells.method, cells.losses[loss], denoiser, cells.training[loss], self.seed, self.num_threads
        )

    def evaluate_unit(self, checkpoint: Checkpoint) -> Evaluate:
        """The work of stage evaluate: teachers have samplers of their own, and denoisers likelihoods, once each."""
        stage, item, few_steps = checkpoint.stage, checkpoint.item, checkpoint.few_steps
        if stage == "init":
            return dataclasses.replace(self.evaluate, sampler=self.sampler, bits=None)
        is_teacher = stage == "teacher"
        trained = self.teacher_unit(item) if is_teacher else self.student_unit(stage, item)
        undefined = Cell.of(trained.method, trained.loss).likelihood_undefined
        return dataclasses.replace(
            self.evaluate,
            sampler=self.teacher[item].sampler if is_teacher and not few_steps else self.sampler,
            bits=None if undefined or few_steps else self.evaluate.bits,
        )

    def student_teacher(self, stage: str, loss: str) -> str | None:
        """Which teacher the loss of stage distill or rollout asks. Raises ValueError: one that cannot answer."""
        cells = self.students(stage)
        return asked_teacher(Cell.of(cells.method, cells.losses[loss]), cells.teacher_attention)

    def few_steps(self, attention: str) -> Sampler:
        """How a student of the few steps of `sampler` makes clips; of full attention: all frames together."""
        if attention == "causal":
            return self.sampler
        few = self.sampler
        whole = self.teacher["bidirectional"].sampler
        return dataclasses.replace(whole, num_steps=few.num_steps, step=few.step, schedule=few.schedule)

    def start_unit(self, attention: str) -> Evaluate:
        """The measure of what the cells of the grid start from, in the students' few steps."""
        return self._measure(attention)

    def cell_units(self, cell: Cell) -> CellUnits:
        """The work of one cell of the grid, on one thread. Raises ValueError: a teacher that cannot answer."""
        run, loss = self.grid, self.grid.losses[cell.loss]
        backbone = dataclasses.replace(
            self.denoiser.backbone, attention=cell.attention, end_level=loss.needs_end_level
        )
        denoiser = dataclasses.replace(self.denoiser, backbone=backbone)
        critic = run.critic_optimizers.get(cell.loss, run.training.critic_optimizer)
        training = dataclasses.replace(run.training, critic_optimizer=critic)
        return CellUnits(
            TrainCell(run.methods[cell.method], loss, denoiser, training, self.seed, num_threads=1),
            self._measure(cell.attention),
            teacher=asked_teacher(cell, run.teacher_attention.get(cell.loss)),
        )

    def trial_units(self, trial: Trial, num_steps: int) -> CellUnits:
        """The work of one trial of the sweep: a cell of the grid by its setting, seed and budget."""
        run, units = self.sweep, self.cell_units(trial.cell)
        training = dataclasses.replace(
            units.train.training, num_steps=num_steps, checkpoint_every=run.checkpoint_every
        )
        train = dataclasses.replace(
            units.train, training=training, seed=trial.seed, num_threads=run.resources.num_cpus
        )
        return CellUnits(trial.setting.applied(train), self._of_trial(units.evaluate, trial), units.teacher)

    def start_trial_unit(self, trial: Trial) -> Evaluate:
        """The measure of what the cells of a method start from."""
        assert trial.phase == START_PHASE
        return self._of_trial(self.start_unit(METHODS[trial.cell.method].attention), trial)

    def _of_trial(self, evaluate: Evaluate, trial: Trial) -> Evaluate:
        run = self.sweep
        return dataclasses.replace(
            evaluate,
            seed=trial.seed,
            split=trial.split,
            num_clips=run.num_clips,
            num_threads=run.resources.num_cpus,
        )

    def _measure(self, attention: str) -> Evaluate:
        """The evaluation of the grid: fewer clips, on one thread, and no likelihood, which few steps have not."""
        return dataclasses.replace(
            self.evaluate,
            sampler=self.few_steps(attention),
            num_clips=self.grid.num_clips,
            bits=None,
            i3d_path=None,
            i3d_sha256=None,
            num_threads=1,
        )

    def ablation_units(self, objective: Objective) -> Units:
        """The work of one teacher of the ablation: the causal one but for its objective, on one thread."""
        ablation, like = self.ablation, self.teacher_unit("causal")
        assert isinstance(like.method, DiffusionForcing)
        assert isinstance(like.loss, L2)
        schedules = ablation.schedules
        loss = dataclasses.replace(like.loss, weighting=ablation.weightings[objective.weighting])
        denoiser = dataclasses.replace(
            like.denoiser, prediction=objective.prediction, schedule=schedules[objective.schedule]
        )
        train = TrainCell(like.method, loss, denoiser, ablation.training, self.seed, num_threads=1)
        measure = self.evaluate_unit(Checkpoint("teacher", "causal"))
        bits, num_clips = measure.bits, ablation.num_clips
        if bits is not None:
            bits = dataclasses.replace(bits, num_clips=min(bits.num_clips, num_clips))
        i3d = {"i3d_path": None, "i3d_sha256": None}
        evaluate = dataclasses.replace(measure, num_clips=num_clips, bits=bits, num_threads=1, **i3d)
        spread = LossSpread(like.method, loss, schedules, num_clips=ablation.num_spread_clips, seed=self.seed)
        return Units(train, evaluate, spread)


def asked_teacher(cell: Cell, wanted: str | None) -> str | None:
    """Which teacher the loss of a cell asks: the one that it needs, or another that can answer too.

    Raises:
        ValueError: the loss asks none, or the one that is wanted cannot answer.
    """
    if wanted is None or wanted == cell.teacher:
        return cell.teacher
    one_of(TEACHERS, teacher_attention=wanted)
    free = LOSSES[cell.loss].follows_flow and METHODS[cell.method].teacher != cell.teacher
    if cell.teacher is None or not free:
        needed = f"only {cell.teacher} fits" if cell.teacher else "none is asked"
        raise ValueError(
            f"teacher_attention must be one that {cell.method} with {cell.loss} can ask, {needed}: {wanted}"
        )
    return wanted
