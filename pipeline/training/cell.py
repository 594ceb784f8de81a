"""One training unit: a cell of the grid, from its inputs to the student's averaged weights."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.diffusion.adaptive import AdaptiveSchedule
from pipeline.interfaces import Labels, Progress
from pipeline.losses.dmd import Dmd
from pipeline.losses.l2 import L2
from pipeline.losses.loss import Loss
from pipeline.methods.method import Method, StoredMethod
from pipeline.models.denoiser import Denoiser, DenoiserSpec, load_denoiser, save_denoiser
from pipeline.streams import stream_seed
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.loop import Clips, StepReport, TrainingSpec, TrainState, train
from pipeline.unit import Metrics, digest_of

TEACHERS = {"causal": "causal", "bidirectional": "full"}  # the attention of each that a method may name
WATCHED = "learning_rate, max_grad_norm, batch_size"  # the parameters to look at when a loss is not finite


@dataclass(frozen=True)
class TrainCell:
    """Train `method` x `loss`.

    Inputs: `codec` (latents of the train split); `init`, the student to start from, and `teacher`, a denoiser of
    the attention that the method's judging asks for, each where the cell has one; `trajectories` where the method
    reads its clips from there.
    """

    method: Method
    loss: Loss
    denoiser: DenoiserSpec
    training: TrainingSpec
    seed: int
    num_threads: int

    def __post_init__(self) -> None:
        attention = self.denoiser.backbone.attention
        if self.method.attention == "full" and attention != "full":
            raise ValueError(f"backbone.attention must be full under {type(self.method).__name__}, got {attention}")
        self.check_classes()
        if self.loss.needs_end_level and not self.denoiser.backbone.end_level:
            raise ValueError(f"backbone.end_level must be true with {type(self.loss).__name__}, got false")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Resume or start; yields a report every `report_every` steps.

        Raises:
            ValueError: an input does not fit: other latents, other sizes, another schedule, no teacher.
            FloatingPointError: a loss is not finite.
        """
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        codec = digest_of(inputs["codec"] / "codec.json")
        clips, labels = self.clips(inputs, codec), self.labels(inputs)
        state = self.start(inputs, codec, clips.shape[1])
        checkpoint = load_checkpoint(directory)
        if checkpoint is not None:
            state.load(checkpoint.step, checkpoint.state["flops_per_step"], checkpoint.tensors)
        yield Progress(state.step, self.training.num_steps)
        try:
            yield from self._follow(state, clips, labels, directory)
        except FloatingPointError as error:
            last = load_checkpoint(directory)
            kept = f"checkpoint of step {last.step} in {directory}" if last else "there is no checkpoint yet"
            raise FloatingPointError(f"{error}; last good: {kept}; look at {WATCHED}") from error
        save_denoiser(state.ema.average, directory / "out", latents=codec)
        return self.cost(state)

    def clips(self, inputs: Mapping[str, Path], codec: str) -> Clips:
        """Clips of data, or what the method reads instead. Raises ValueError where they do not fit."""
        data = torch.from_numpy(np.load(inputs["codec"] / "train.npy"))
        self.check_clips(data)
        if not isinstance(self.method, StoredMethod):
            return data
        if "trajectories" not in inputs:
            raise ValueError(f"{type(self.method).__name__} needs trajectories, and the unit has no such input")
        return self.method.read(inputs["trajectories"], latents=codec, schedule=self.denoiser.schedule)

    def labels(self, inputs: Mapping[str, Path]) -> Labels | None:
        """The class of every clip, where the student is told. Raises ValueError: clips without, or with others."""
        num_classes, path = self.denoiser.backbone.num_classes, inputs["codec"] / "train_classes.npy"
        if num_classes == 0:
            return None
        if isinstance(self.method, StoredMethod) or not path.exists():
            raise ValueError(f"backbone.num_classes must be 0 where clips have no class, got {num_classes}")
        labels = torch.from_numpy(np.load(path))
        most = int(labels.max())
        if most >= num_classes:
            raise ValueError(f"backbone.num_classes must be above the labels in {path}: {num_classes}, and {most}")
        return labels

    def _follow(
        self, state: TrainState, clips: Clips, labels: Labels | None, directory: Path
    ) -> Generator[Progress, None, None]:
        config, window = self.training, []
        for report in train(state, clips, method=self.method, loss=self.loss, seed=self.seed, labels=labels):
            window.append(report)
            if report.step % config.report_every == 0 or report.step == config.num_steps:
                yield Progress(report.step, config.num_steps, average(window))
                window.clear()
            if report.step % config.checkpoint_every == 0 and report.step < config.num_steps:
                save_checkpoint(directory, report.step, state.tensors(), {"flops_per_step": state.flops_per_step})

    def start(self, inputs: Mapping[str, Path], codec: str, num_frames: int) -> TrainState:
        """The state before the first step. Raises ValueError where an input does not fit."""
        student = Denoiser(self.denoiser)
        if "init" in inputs:
            origin = load_denoiser(inputs["init"], latents=codec)
            self.check_fit(origin.spec, inputs["init"])
            student.start_from(origin)
        if self.loss.needs_teacher and "teacher" not in inputs:
            raise ValueError(f"{type(self.loss).__name__} needs a teacher, and the unit has no such input")
        teacher = None
        if "teacher" in inputs:
            teacher = load_denoiser(inputs["teacher"], latents=codec)
            self.check_teacher(teacher.spec, inputs["teacher"])
        return TrainState(student, self.loss.critics(teacher), self.training, self.adaptive(num_frames))

    def adaptive(self, num_frames: int) -> AdaptiveSchedule | None:
        """The schedule that adapts the student's, where the cell asks for one.

        Raises:
            ValueError: the loss is not one on data, or the schedule does not reach far enough.
        """
        if self.training.adaptive is None:
            return None
        if not isinstance(self.loss, L2):
            raise ValueError(f"training.adaptive must be null but for the loss l2, got {type(self.loss).__name__}")
        return AdaptiveSchedule(self.training.adaptive, self.denoiser.schedule, self.loss.weighting, num_frames)

    def check_fit(self, origin: DenoiserSpec, path: Path) -> None:
        """Raises ValueError unless weights of `origin` mean the same in this student.

        Attention may differ, and the student may have an end level beyond what it starts from.
        """
        mine, theirs = ({**vars(spec.backbone)} for spec in (self.denoiser, origin))
        may_differ = {"attention", "chunk_len"} | ({"end_level"} if mine["end_level"] else set())
        for name in mine:
            if name not in may_differ and mine[name] != theirs[name]:
                raise ValueError(
                    f"backbone.{name} must be that of the student that training starts from: {mine[name]} here, "
                    f"{theirs[name]} in {path}"
                )
        for name in ("prediction", "schedule", "sigma_data"):
            here, there = getattr(self.denoiser, name), getattr(origin, name)
            if here != there:
                raise ValueError(f"{name} must be that of the student that training starts from: {here}, {there}")

    def check_teacher(self, teacher: DenoiserSpec, path: Path) -> None:
        """Raises ValueError unless it can answer about frames of the student, and as the method asks."""
        mine, theirs = self.denoiser.backbone, teacher.backbone
        for name, here, there in (
            ("backbone.channels", mine.channels, theirs.channels),
            ("backbone.frame_size", mine.frame_size, theirs.frame_size),
            ("backbone.num_classes", mine.num_classes, theirs.num_classes),
            ("schedule", self.denoiser.schedule, teacher.schedule),
        ):
            if here != there:
                raise ValueError(f"{name} must be that of the teacher: {here} here, {there} in {path}")
        is_free = self.loss.follows_flow and self.method.attention == "causal"  # each has an answer in its context
        wanted = TEACHERS[self.method.teacher]
        if theirs.attention != wanted and not (is_free and wanted == "full"):
            raise ValueError(
                f"backbone.attention of the teacher must be {wanted} under {type(self.method).__name__} with "
                f"{type(self.loss).__name__}, got {theirs.attention} in {path}"
            )
        if theirs.attention == "causal" and theirs.chunk_len != mine.chunk_len:
            raise ValueError(
                f"backbone.chunk_len must be that of a causal teacher: {mine.chunk_len} here, {theirs.chunk_len} "
                f"in {path}"
            )

    def check_classes(self) -> None:
        """Raises ValueError where what needs classes is asked of a student that is told none."""
        num_classes, dropout = self.denoiser.backbone.num_classes, self.training.label_dropout
        if num_classes == 0 and dropout > 0:
            raise ValueError(f"label_dropout must be 0 where backbone.num_classes is 0, got {dropout}")
        if num_classes == 0 and isinstance(self.loss, Dmd) and self.loss.guidance != 1:
            raise ValueError(f"guidance must be 1 where backbone.num_classes is 0, got {self.loss.guidance}")

    def check_clips(self, clips: Clips) -> None:
        """Raises ValueError unless the latents have the shape that the backbone takes."""
        spec = self.denoiser.backbone
        wanted = (spec.channels, spec.frame_size, spec.frame_size)
        if tuple(clips.shape[2:]) != wanted:
            raise ValueError(f"backbone must fit the latents: it takes {wanted}, they are {tuple(clips.shape[2:])}")

    def cost(self, state: TrainState) -> Metrics:
        """What the student cost, in everything but seconds."""
        config, critic_updates = self.training, self.loss.critic_updates * self.training.num_steps
        return {
            "student_updates": config.num_steps,
            "critic_updates": critic_updates,
            "clips_seen": config.batch_size * (config.num_steps + critic_updates),
            "flops": state.flops_per_step * config.num_steps,
            "parameters": sum(p.numel() for p in state.student.parameters()),
            "cell": {"method": type(self.method).__name__, "loss": type(self.loss).__name__},
        }


def average(reports: list[StepReport]) -> dict[str, float]:
    """Mean of every metric over some steps, to seven digits."""
    names = reports[-1].metrics
    return {name: float(f"{torch.stack([r.metrics[name] for r in reports]).mean().item():.7g}") for name in names}
