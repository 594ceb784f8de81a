"""params.yaml -> frozen dataclasses, checked whole before anything runs.

`python -m pipeline.config check [FILE]` says what is wrong in one line and exits with 2.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pipeline.combinations import check_combinations
from pipeline.data import SOURCES
from pipeline.data.processes import KNOWN_DENSITY, Process
from pipeline.data.store import Prepare, Source
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import NOISE_LEVELS, NoiseLevels
from pipeline.diffusion.schedule import SCHEDULES, Schedule
from pipeline.diffusion.trajectory import STEPS, Step
from pipeline.diffusion.weighting import WEIGHTINGS, Weighting
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.features import TrainFeatures
from pipeline.grid_run import GridRun
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.run import LaboratoryRun
from pipeline.losses import LOSSES
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import latent_shape
from pipeline.params import CodecParams, Params, StudentParams
from pipeline.schema import ConfigError, Schema
from pipeline.sweep.budget import BUDGETS, Budget
from pipeline.training.init import INITS, Init

REGISTRIES = {
    Source: SOURCES,
    Process: KNOWN_DENSITY,
    Schedule: SCHEDULES,
    Step: STEPS,
    NoiseLevels: NOISE_LEVELS,
    Weighting: WEIGHTINGS,
    Method: METHODS,
    Loss: LOSSES,
    Init: INITS,
    Budget: BUDGETS,
}


def load_params(path: Path) -> Params:
    """Parameters from a YAML 1.2 file, every one and every combination checked.

    Raises:
        ConfigError: one line with the dotted path, the rule and the value.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text())
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return parse_params(raw)


def parse_params(raw: Any) -> Params:
    """The same from plain data. Raises ConfigError."""
    sections = {field.name: field.type for field in dataclasses.fields(Params)}
    if not isinstance(raw, dict) or set(raw) != set(sections):
        given = set(raw) if isinstance(raw, dict) else set()
        wrong = sorted(str(name) for name in given ^ set(sections))
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
            TrainFeatures: {**run, "num_frames": num_frames},
            BackboneSpec: {
                "channels": channels,
                "frame_size": frame_size,
                "attention": "causal",
                "end_level": False,
                "chunk_len": sampler.chunk_len,
            },
            Bidirectional: {"sampler": None},
            TeacherForcing: {"chunk_len": sampler.chunk_len, "sampler": None},
            DiffusionForcing: {"chunk_len": sampler.chunk_len, "sampler": None},
            SelfForcing: {"sampler": sampler},
            Evaluate: {**run, "num_frames": num_frames, "sampler": sampler, "split": "test"},
        },
    )
    few_step = {
        Bidirectional: {"sampler": sampler},
        TeacherForcing: {"chunk_len": sampler.chunk_len, "sampler": sampler},
        DiffusionForcing: {"chunk_len": sampler.chunk_len, "sampler": sampler},
    }
    students = Schema(REGISTRIES, {**schema.derived, **few_step})
    one_frame = {"chunk_len": 1, "sampler": None}  # of the laboratory, whose students make a frame in one step
    one_step = {
        Bidirectional: {"sampler": None},
        TeacherForcing: one_frame,
        DiffusionForcing: one_frame,
        SelfForcing: {"sampler": ONE_STEP},
    }
    schemas = {StudentParams: students, GridRun: students, LaboratoryRun: Schema(REGISTRIES, one_step)}
    for name, kind in sections.items():
        if name not in built:
            built[name] = schemas.get(kind, schema).build(kind, raw[name], name)
    params = Params(**built)
    check_combinations(params)
    return params


def _latent_shape(codec: CodecParams | None, prepare: Prepare) -> tuple[int, int, int]:
    try:
        return latent_shape(codec.network if codec else None, prepare.source.frame_shape)
    except ValueError as error:
        raise ConfigError(f"codec.network: {error}") from error


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
