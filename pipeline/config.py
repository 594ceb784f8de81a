"""params.yaml -> frozen dataclasses, checked whole before anything runs.

`python -m pipeline.config check [FILE]` says what is wrong in one line and exits with 2.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data import SOURCES
from pipeline.data.store import Prepare, Source
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import check_chunks
from pipeline.diffusion.schedule import SCHEDULES, Schedule
from pipeline.evaluation.evaluate import LONGER, Evaluate
from pipeline.evaluation.features import TrainFeatures
from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import CodecSpec, latent_shape
from pipeline.models.denoiser import DenoiserSpec
from pipeline.schema import ConfigError, Schema
from pipeline.training.cell import TrainCell
from pipeline.training.codec import CodecTraining, TrainCodec
from pipeline.training.loop import TrainingSpec

REGISTRIES = {Source: SOURCES, Schedule: SCHEDULES, Method: METHODS, Loss: LOSSES}
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
        """The work of stage evaluate, for one checkpoint: teachers have samplers of their own."""
        sampler = self.teacher[item].sampler if stage == "teacher" else self.sampler
        return dataclasses.replace(self.evaluate, sampler=sampler)


def load_params(path: Path) -> Params:
    """Parameters from a YAML 1.2 file, every one and every combination checked.

    Raises:
        ConfigError: one line with the dotted path, the rule and the value.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text())
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return parse_params(raw)


def parse_params(raw: Any) -> Params:
    """The same from plain data. Raises ConfigError."""
    sections = {field.name: field.type for field in dataclasses.fields(Params)}
    if not isinstance(raw, dict) or set(raw) != set(sections):
        given = set(raw) if isinstance(raw, dict) else set()
        wrong = sorted(given ^ set(sections))
        raise ConfigError(f"the sections must be {', '.join(sections)}; missing or unknown: {', '.join(wrong)}")
    leaves = Schema(REGISTRIES)
    built: dict[str, Any] = {
        name: leaves.build(kind, raw[name], name)
        for name, kind in sections.items()
        if name in ("profile", "seed", "num_threads", "sampler", "codec")
    }
    run = {"seed": built["seed"], "num_threads": built["num_threads"]}
    if built["num_threads"] < 1:
        raise ConfigError(f"num_threads must be at least 1, got {built['num_threads']}")
    seeded = Schema(REGISTRIES, {Prepare: {"seed": run["seed"]}})
    built["prepare"] = seeded.build(Prepare, raw["prepare"], "prepare")
    num_frames = built["prepare"].num_frames
    channels, frame_size, _ = _latent_shape(built["codec"], built["prepare"])
    sampler: Sampler = built["sampler"]
    schema = Schema(
        REGISTRIES,
        {
            TrainFeatures: {"seed": built["seed"], "num_frames": num_frames},
            BackboneSpec: {
                "channels": channels,
                "frame_size": frame_size,
                "attention": "causal",
                "chunk_len": sampler.chunk_len,
            },
            DiffusionForcing: {"chunk_len": sampler.chunk_len, "sampler": None},
            SelfForcing: {"sampler": sampler},
            Evaluate: {**run, "num_frames": num_frames, "sampler": sampler},
        },
    )
    few_step = {DiffusionForcing: {"chunk_len": sampler.chunk_len, "sampler": sampler}}
    students = Schema(REGISTRIES, {**schema.derived, **few_step})
    for name, kind in sections.items():
        if name not in built:
            built[name] = (students if kind is StudentParams else schema).build(kind, raw[name], name)
    params = Params(**built)
    check_combinations(params)
    return params


def check_combinations(params: Params) -> None:
    """What no section can see by itself. Raises ConfigError."""
    num_frames = params.prepare.num_frames
    with_path("sampler.chunk_len", check_chunks, num_frames, params.sampler.chunk_len)
    with_path("sampler", params.sampler.chunks, num_frames)
    _require(
        set(params.teacher) == set(TEACHERS),
        f"teacher must have {' and '.join(TEACHERS)}, got {', '.join(params.teacher) or 'none'}",
    )
    for name, run in params.teacher.items():
        sampler = run.sampler
        for length in (num_frames, num_frames * params.prepare.heldout_len_factor):
            with_path(f"teacher.{name}.sampler", sampler.chunks, length)
        longest = max(sampler.first_chunk_len or 0, sampler.window + sampler.chunk_len)
        if name == "bidirectional":
            _require(
                longest == num_frames,
                f"teacher.{name}.sampler: window + chunk_len, and first_chunk_len, must be prepare.num_frames: "
                f"{sampler.window} + {sampler.chunk_len}, {sampler.first_chunk_len}, and {num_frames}",
            )
    for stage, cells in (("distill", params.distill), ("rollout", params.rollout)):
        for loss in cells.losses:
            _require(loss in cells.training, f"{stage}.training must have {loss}: it is in {stage}.losses")
            excluded = Cell(_name_of(cells.method), loss).excluded
            _require(excluded is None, f"{stage}.losses.{loss}: {excluded}")
    _require(
        params.prepare.heldout_len_factor >= LONGER,
        f"prepare.heldout_len_factor must be at least {LONGER}, the length over which drift is measured: "
        f"{params.prepare.heldout_len_factor}",
    )
    available = params.prepare.num_test // 2
    _require(
        params.evaluate.num_clips <= available,
        f"evaluate.num_clips must be at most half of prepare.num_test: {params.evaluate.num_clips} and {available}",
    )


def with_path(path: str, check: Any, *arguments: Any) -> None:
    """Run a check of the library; put the dotted path before what it says."""
    try:
        check(*arguments)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _latent_shape(codec: CodecParams | None, prepare: Prepare) -> tuple[int, int, int]:
    try:
        return latent_shape(codec.network if codec else None, prepare.source.frame_shape)
    except ValueError as error:
        raise ConfigError(f"codec.network: {error}") from error


def _name_of(method: Method) -> str:
    return next(name for name, kind in METHODS.items() if isinstance(method, kind))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def main(arguments: list[str]) -> int:
    """`check [FILE]`."""
    path = Path(arguments[1]) if len(arguments) > 1 else Path("params.yaml")
    try:
        load_params(path)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"{path.name}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
