"""What the sections of the sweeps ask of the others: checked before anything runs."""

from pipeline.ablation import Ablation
from pipeline.diffusion.trajectory import DDIM, Euler
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.l2 import L2
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.denoiser import DenoiserSpec
from pipeline.params import Params
from pipeline.schema import ConfigError, require, with_path
from pipeline.sweep.budget import Price
from pipeline.sweep.price import clips_per_step
from pipeline.training.init import ConsistencyInit, Setting


def check_sweeps(params: Params) -> None:
    """The sections ablation, grid, sweep and causal_forcing. Raises ConfigError."""
    _check_ablation(params)
    _check_grid_run(params)
    _check_sweep(params)
    _check_inits(params)


def check_consistency_grid(path: str, loss: object, params: Params) -> None:
    """The levels of a consistency loss: those of the schedule; segments end where the sampler asks."""
    if not isinstance(loss, ConsistencyDistillation | ConsistencyTraining):
        return
    grid, sampler = loss.grid, params.sampler
    with_path(f"{path}.grid", grid.levels, params.denoiser.schedule)
    if grid.segments > 1:
        require(
            isinstance(sampler.step, DDIM | Euler)
            and sampler.num_steps == grid.segments
            and sampler.schedule == grid.spacing,
            f"{path}.grid.segments above 1 need sampler.step ddim or euler, sampler.num_steps equal to segments "
            f"and sampler.schedule equal to grid.spacing, got segments={grid.segments} and {sampler}",
        )


def _check_ablation(params: Params) -> None:
    """Every network must answer under every schedule: its loss is estimated by levels of all of them."""
    ablation, causal = params.ablation, params.teacher["causal"]
    require(
        isinstance(causal.method, DiffusionForcing) and isinstance(causal.loss, L2),
        "teacher.causal must be diffusion_forcing with l2, which the ablation varies",
    )
    for name, schedule in ablation.schedules.items():
        for prediction in ablation.predictions:
            with_path("ablation.predictions", DenoiserSpec, params.denoiser.backbone, prediction, schedule)
        with_path(f"ablation.schedules.{name}", causal.sampler.levels, schedule)
    _check_measured(params, ablation)
    prepare, num_clips = params.prepare, ablation.num_clips
    most = min(prepare.num_test // 2, prepare.num_train)
    require(
        num_clips <= most,
        f"ablation.num_clips must be at most half of prepare.num_test, and prepare.num_train: {num_clips} and "
        f"{most}",
    )


def _check_measured(params: Params, ablation: Ablation) -> None:
    """What measures its teachers reaches as far as it must."""
    for objective in ablation.objectives():
        path = f"ablation.schedules.{objective.schedule}"
        try:
            train, evaluate, spread = params.ablation_units(objective)
        except ValueError as error:
            raise ConfigError(f"ablation: {error}") from error
        native = train.denoiser.schedule
        if evaluate.bits is not None:
            with_path(path, evaluate.bits.levels, native)
        (low, high), (least, most) = native.range, (spread.adaptive.low, spread.adaptive.high)
        require(
            low <= least and most <= high,
            f"{path} must reach the log-SNRs from {least} to {most}, over which losses are compared, got "
            f"{low:.4f} to {high:.4f}",
        )


def _check_grid_run(params: Params) -> None:
    """Every cell that can be trained has its units, whose clips are there."""
    run, prepare = params.grid, params.prepare
    for cell in run.cells():
        if cell.excluded is None:
            with_path("grid", params.cell_units, cell)
    for name, loss in run.losses.items():
        check_consistency_grid(f"grid.losses.{name}", loss, params)
    most = min(prepare.num_test // 2, prepare.num_train)
    require(
        run.num_clips <= most,
        f"grid.num_clips must be at most half of prepare.num_test, and prepare.num_train: {run.num_clips} and "
        f"{most}",
    )


def _check_sweep(params: Params) -> None:
    """Its cells are of the grid, its clips are there; its budget pays a step of each, as far as is known."""
    run, grid, prepare = params.sweep, params.grid, params.prepare
    with_path("sweep", run.selected, grid.methods, grid.losses)
    counts = {"half of prepare.num_test": prepare.num_test // 2, "prepare.num_train": prepare.num_train}
    if run.tuning is not None:
        counts["half of prepare.num_metric"] = prepare.num_metric // 2
    for what, most in counts.items():
        require(run.num_clips <= most, f"sweep.num_clips must be at most {what}: {run.num_clips} and {most}")
    report_every = grid.training.report_every
    require(
        run.checkpoint_every % report_every == 0,
        f"sweep.checkpoint_every must be a multiple of grid.training.report_every, {report_every}: got "
        f"{run.checkpoint_every}",
    )
    size, workers = grid.training.micro_batch_size or grid.training.batch_size, run.resources.num_workers
    require(
        size % workers == 0,
        f"sweep.resources.num_workers must divide the clips of a batch of grid.training, {size}: got {workers}",
    )
    for cell in run.selected(grid.methods, grid.losses).cells:
        train = params.cell_units(cell).train
        if run.tuning is not None:
            with_path("sweep.tuning", run.tuning.check, train)
        if not run.budget.is_measured:
            with_path(f"sweep.budget: {cell}", run.budget.num_steps, Price(clips_per_step(train)))


def _check_inits(params: Params) -> None:
    """How students begin, in the run and in the experiment, is made of units that can be."""
    setting = Setting(params.denoiser, params.sampler, params.seed, params.num_threads)
    if isinstance(params.init, ConsistencyInit):
        check_consistency_grid("init.loss", params.init.loss, params)
    experiment, prepare = params.causal_forcing, params.prepare
    for name in experiment.inits():
        with_path("causal_forcing", experiment.units, name, setting, SelfForcing(params.sampler), params.evaluate)
    check_consistency_grid("causal_forcing.consistency", experiment.consistency, params)
    most = min(prepare.num_test // 2, prepare.num_train)
    require(
        experiment.num_clips <= most,
        f"causal_forcing.num_clips must be at most half of prepare.num_test, and prepare.num_train: "
        f"{experiment.num_clips} and {most}",
    )
