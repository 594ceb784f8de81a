"""What the sections of the parameters ask of each other: checked before anything runs."""

from functools import partial

import numpy as np
import torch

from pipeline.data.moving_blob import MovingBlob
from pipeline.diffusion.adaptive import AdaptiveSchedule
from pipeline.diffusion.denoising import loss_factor
from pipeline.diffusion.noise_levels import check_chunks
from pipeline.diffusion.schedule import Schedule
from pipeline.evaluation.evaluate import LONGER, Evaluate
from pipeline.evaluation.metric_networks import clip_encoder_spec
from pipeline.grid import Cell
from pipeline.losses.dmd import Dmd
from pipeline.losses.l2 import L2
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.digit_reader import NUM_CLASSES, DigitReaderSpec
from pipeline.params import TEACHERS, Checkpoint, Params, TeacherRun
from pipeline.schema import require, same, with_path
from pipeline.sweep_combinations import check_consistency_grid, check_sweeps
from pipeline.unit import PROJECT, digest_of

MAX_FACTOR = 1e6  # of a loss on data, at the noisiest level


def check_combinations(params: Params) -> None:
    """What no section can see by itself. Raises ConfigError."""
    num_frames = params.prepare.num_frames
    with_path("sampler.chunk_len", check_chunks, num_frames, params.sampler.chunk_len)
    with_path("sampler", params.sampler.chunks, num_frames)
    with_path("sampler", params.sampler.levels, params.denoiser.schedule)
    _check_classes(params)
    _check_teachers(params)
    _check_students(params)
    _check_clips(params)
    if params.evaluate.bits is not None:
        with_path("evaluate.bits", params.evaluate.bits.levels, params.denoiser.schedule)
    if params.evaluate.i3d_path is not None:
        _check_i3d(params.evaluate)
    check_sweeps(params)


def _check_classes(params: Params) -> None:
    """A network is told the classes of the source, or none, and what needs them has them."""
    known, told = params.prepare.source.num_classes, params.denoiser.backbone.num_classes
    path = "denoiser.backbone.num_classes"
    require(told in (0, known), f"{path} must be 0 or that of prepare.source: {told} and {known}")
    missing = f"{path} is 0" if known else "prepare.source has no classes"
    stages = {"distill": params.distill, "rollout": params.rollout}
    for stage, run in {**stages, "grid": params.grid}.items():
        for name, loss in run.losses.items():
            if isinstance(loss, Dmd) and not told:
                where = f"{stage}.losses.{name}.guidance"
                require(loss.guidance == 1, f"{where} must be 1 where {missing}, got {loss.guidance}")
    teachers = {f"teacher.{name}.training": run.training for name, run in params.teacher.items()}
    teachers["ablation.training"] = params.ablation.training
    students = {
        f"{stage}.training.{name}": run.training[name] for stage, run in stages.items() for name in run.training
    }
    for where, training in {**teachers, **students, "grid.training": params.grid.training}.items():
        dropout = training.label_dropout
        require(told > 0 or dropout == 0, f"{where}.label_dropout must be 0 where {missing}, got {dropout}")
        learns = where not in teachers or 0 < dropout < 1 or told == 0  # to answer without a class, too
        require(learns, f"{where}.label_dropout must be in (0, 1) where {path} is {told}, got {dropout}")


def _check_teachers(params: Params) -> None:
    prepare, sampler = params.prepare, params.sampler
    same("teacher", params.teacher, "one for each attention", TEACHERS)
    for name, run in params.teacher.items():
        cell = Cell.of(run.method, run.loss)
        require(cell.excluded is None, f"teacher.{name}.loss: {cell.excluded}")
        unfit = {"causal": Bidirectional, "bidirectional": TeacherForcing}[name]
        require(
            not isinstance(run.method, unfit),
            f"teacher.{name}.method must be one for {TEACHERS[name]} attention, got {cell.method}",
        )
        _check_levels(f"teacher.{name}", run, params.denoiser.schedule)
        require(
            not run.loss.needs_teacher,
            f"teacher.{name}.loss must be one that needs no teacher itself, got {cell.loss}",
        )
        with_path(f"teacher.{name}.sampler", run.sampler.levels, params.denoiser.schedule)
        for length in (prepare.num_frames, prepare.num_frames * prepare.heldout_len_factor):
            with_path(f"teacher.{name}.sampler", run.sampler.chunks, length)
    causal, whole = params.teacher["causal"].sampler, params.teacher["bidirectional"].sampler
    require(
        causal.chunk_len == sampler.chunk_len,
        f"teacher.causal.sampler.chunk_len must be sampler.chunk_len, the frames that see each other in training: "
        f"{causal.chunk_len} and {sampler.chunk_len}",
    )
    for path, first in (("teacher.causal.sampler", causal.first_chunk_len), ("sampler", sampler.first_chunk_len)):
        require(
            first is None,
            f"{path}.first_chunk_len must be absent: under causal attention all chunks are alike, got {first}",
        )
    require(
        whole.lag is None,
        f"teacher.bidirectional.sampler.lag must be null: full attention saw whole clips alone, got {whole.lag}",
    )
    longest = max(whole.first_chunk_len or 0, whole.window + whole.chunk_len)
    require(
        longest == prepare.num_frames,
        f"teacher.bidirectional.sampler: window + chunk_len, and first_chunk_len, must be prepare.num_frames: "
        f"{whole.window} + {whole.chunk_len}, {whole.first_chunk_len}, and {prepare.num_frames}",
    )


def _check_levels(path: str, run: TeacherRun, schedule: Schedule) -> None:
    """What a teacher's law of levels, its schedule and its weighting ask of each other."""
    adaptive, method, loss = run.training.adaptive, run.method, run.loss
    if not (isinstance(loss, L2) and isinstance(method, DiffusionForcing)):
        require(adaptive is None, f"{path}.training.adaptive must be null but for diffusion_forcing with l2")
        return
    num_levels = method.noise_levels.num_levels
    if adaptive is not None:
        require(
            num_levels is None,
            f"{path}.training.adaptive must be null where method.noise_levels.num_levels gives the levels, got "
            f"num_levels={num_levels}",
        )
        with_path(f"{path}.training.adaptive", AdaptiveSchedule, adaptive, schedule, loss.weighting, 1)
    if num_levels is not None:
        largest = loss_factor(torch.ones(1, 1), schedule=schedule, weighting=loss.weighting).item()
        require(
            largest <= MAX_FACTOR,
            f"{path}.method.noise_levels.num_levels must be null where the weight at t = 1, which a grid visits, "
            f"is above {MAX_FACTOR:g}: num_levels={num_levels}, weight {largest:.3g} of {loss.weighting} on "
            f"{schedule}",
        )


def _check_students(params: Params) -> None:
    with_path("init", params.init_units)
    items = {
        "teacher": list(TEACHERS),
        "distill": list(params.distill.losses),
        "rollout": list(params.rollout.losses),
    }
    for stage, cells in (("distill", params.distill), ("rollout", params.rollout)):
        require(bool(cells.losses), f"{stage}.losses must name at least one loss")
        require(
            cells.method.attention == "causal",
            f"{stage}.method must make a causal student, got one of {cells.method.attention} attention",
        )
        for loss, entry in cells.losses.items():
            excluded = Cell.of(cells.method, entry).excluded
            require(excluded is None, f"{stage}.losses.{loss}: {excluded}")
            require(
                loss in params.distill.losses,
                f"rollout.losses must be among distill.losses, whose students it starts from: {loss} is not",
            )
            check_consistency_grid(f"{stage}.losses.{loss}", entry, params)
            with_path(stage, params.student_teacher, stage, loss)
        same(f"{stage}.training", cells.training, f"those of {stage}.losses", cells.losses)
    asked = [Checkpoint(stage, item) for stage, names in items.items() for item in names]
    asked.append(Checkpoint("teacher", "causal", few_steps=True))
    asked += [Checkpoint("init")] if params.trains_init else []
    wanted = {checkpoint.name: checkpoint for checkpoint in asked}
    rule = "both teachers, the causal one in few steps too, init where it trains, and every loss of both stages"
    same("checkpoints", params.checkpoints, rule, wanted)
    for name, checkpoint in params.checkpoints.items():
        require(
            checkpoint == wanted[name],
            f"checkpoints.{name} must be the stage, the item and the few_steps of its name, got "
            f"{checkpoint.stage}, {checkpoint.item} and {checkpoint.few_steps}",
        )


def _check_clips(params: Params) -> None:
    prepare, features, num_clips = params.prepare, params.features, params.evaluate.num_clips
    empty = np.empty((0, prepare.num_frames, *prepare.source.frame_shape), np.uint8)
    encoder = partial(clip_encoder_spec, num_frames=prepare.num_frames, width=features.encoder_width)
    with_path("prepare.source", encoder, empty)
    with_path("prepare.source", DigitReaderSpec, prepare.source.frame_shape[0])
    if isinstance(prepare.source, MovingBlob):
        longest, most = prepare.num_frames * prepare.heldout_len_factor, prepare.source.max_frames
        require(
            longest <= most,
            f"prepare.source.max_frames must be at least num_frames * heldout_len_factor, {longest}: got {most}",
        )
    num_classes = prepare.source.num_classes
    require(
        num_classes <= NUM_CLASSES,
        f"prepare.source must have at most {NUM_CLASSES} classes, as metric networks have: got {num_classes}",
    )
    require(
        prepare.heldout_len_factor >= LONGER,
        f"prepare.heldout_len_factor must be at least {LONGER}, the length over which drift is measured: "
        f"{prepare.heldout_len_factor}",
    )
    half = prepare.num_test // 2
    for path, count, available, of in (
        ("evaluate.num_clips", num_clips, half, "half of prepare.num_test"),
        ("evaluate.num_clips", num_clips, prepare.num_train, "prepare.num_train"),
        ("features.num_gate_clips", features.num_gate_clips, half, "half of prepare.num_test"),
    ):
        require(count <= available, f"{path} must be at most {of}: {count} and {available}")


def _check_i3d(evaluate: Evaluate) -> None:
    """The file is that of the checksum: DVC, which sees parameters alone, then notices another one."""
    path, wanted = PROJECT / str(evaluate.i3d_path), str(evaluate.i3d_sha256)
    require(path.is_file(), f"evaluate.i3d_path must be a file, got {path}")
    digest = digest_of(path)
    require(digest == wanted.lower(), f"evaluate.i3d_sha256 must be that of {path}, {digest}, got {wanted}")
