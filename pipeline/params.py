"""Every parameter of the pipeline, and the unit of work that follows from them for each of its stages."""

import dataclasses
from dataclasses import dataclass

from pipeline.data.store import Prepare
from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.features import TrainFeatures
from pipeline.grid import Cell
from pipeline.losses.loss import Loss
from pipeline.methods.method import Method
from pipeline.models.codec import CodecSpec
from pipeline.models.denoiser import DenoiserSpec
from pipeline.training.cell import TrainCell
from pipeline.training.codec import CodecTraining, TrainCodec
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


@dataclass(frozen=True)
class Checkpoint:
    """What is evaluated: the student of a stage's item."""

    stage: str
    item: str


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
    distill: StudentParams
    rollout: StudentParams
    evaluate: Evaluate
    checkpoints: dict[str, Checkpoint]

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

    def student_unit(self, stage: str, loss: str) -> TrainCell:
        """The work of stage distill or rollout, for one loss."""
        cells: StudentParams = {"distill": self.distill, "rollout": self.rollout}[stage]
        return TrainCell(
            cells.method, cells.losses[loss], self.denoiser, cells.training[loss], self.seed, self.num_threads
        )

    def evaluate_unit(self, stage: str, item: str) -> Evaluate:
        """The work of stage evaluate, for one checkpoint: teachers have samplers of their own, and likelihoods."""
        is_teacher = stage == "teacher"
        trained = self.teacher_unit(item) if is_teacher else self.student_unit(stage, item)
        undefined = Cell.of(trained.method, trained.loss).likelihood_undefined
        return dataclasses.replace(
            self.evaluate,
            sampler=self.teacher[item].sampler if is_teacher else self.sampler,
            bits=None if undefined else self.evaluate.bits,
        )
