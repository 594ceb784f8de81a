"""Frames of a checkpoint, streamed into a file as they are made.

python -m pipeline.sample --checkpoint rollout-gan --frames 64 --out clip.gif
"""

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command_line import USAGE_ERROR, Parser

if TYPE_CHECKING:
    import numpy as np

    from pipeline.diffusion.autoregress import Sampler
    from pipeline.params import Checkpoint, Params

INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 2 with one line for what a person can mend, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        said = sample(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(f"{said}\n")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "python -m pipeline.sample",
        description="Frames of a checkpoint, streamed into a file as they are made.",
        epilog="example: python -m pipeline.sample --checkpoint rollout-gan --frames 64 --clips 4 "
        "--sampler num_steps=8,step=ddim,lag=2 --out clip.gif",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="one of `checkpoints` in params.yaml, or a directory with student.json")
    add(
        "--out",
        required=True,
        type=Path,
        help=".gif or .mp4: plays; .png: a row a clip; .npy: uint8 (N, T, H, W, C)",
    )
    add("--frames", type=int, default=64, help="of a clip (64)")
    add("--clips", type=int, default=1, help="made together (1)")
    add(
        "--sampler",
        default="",
        metavar="KEY=VALUE,…",
        help="what differs from the sampler by which the checkpoint is evaluated (of a directory that is none of "
        "`checkpoints`: the few steps of students); keys are those of `sampler` in params.yaml: num_steps, step, "
        "step.eta, schedule, schedule.shift, chunk_len, first_chunk_len, lag, window, context_noise. lag "
        "is the scheduling matrix: null, one chunk after the other; 0, all together",
    )
    add("--class", dest="label", type=int, help="of all clips, where the network knows classes; default: drawn")
    add("--seed", type=int, help="default: that of params.yaml")
    add("--scale", type=int, default=8, help="screen pixels a pixel, but for .npy (8)")
    add("--codec", type=Path, help="default: artifacts/codec of the run")
    add("--run", type=Path, default=Path(), metavar="DIR", help="where params.yaml and artifacts/ are (.)")
    return parser


def sample(options: argparse.Namespace) -> str:
    """Write the file; where it is and how fast its frames came, in one line.

    Raises:
        ValueError, OSError: the rule that an option breaks; nothing is left of the file.
    """
    from pipeline.clip_files import Layout, replacing, writer_of
    from pipeline.rules import at_least

    at_least(1, frames=options.frames, clips=options.clips, scale=options.scale)
    write = writer_of(options.out)
    with replacing(options.out) as path:
        import torch
        from tqdm import tqdm

        from pipeline.config import load_params
        from pipeline.evaluation.sampling import load_student
        from pipeline.models.codec import load_codec
        from pipeline.sampling_stream import sample_stream
        from pipeline.unit import digest_of

        params = load_params(options.run / "params.yaml")
        torch.set_num_threads(params.num_threads)
        directory, checkpoint = find_checkpoint(params, options.run / "artifacts", options.checkpoint)
        latents = options.codec or options.run / "artifacts" / "codec"
        codec = load_codec(latents)
        student = load_student(directory, latents=digest_of(latents / "codec.json"))
        if checkpoint is None:
            sampler = params.few_steps(student.spec.backbone.attention)
        else:
            sampler = params.evaluate_unit(checkpoint).sampler
        sampler = with_settings(sampler, options.sampler)
        times = [time.perf_counter()]
        parts = sample_stream(
            student,
            codec,
            options.clips,
            options.frames,
            sampler=sampler,
            seed=params.seed if options.seed is None else options.seed,
            label=options.label,
        )
        bar = tqdm(desc="sample", total=options.frames, unit="frame", leave=False, disable=None, dynamic_ncols=True)
        layout = Layout(options.frames, options.scale, params.prepare.source.frames_per_s)
        with contextlib.closing(parts), bar:
            write(_timed(parts, times, bar), path, layout)
    clips = f"{options.clips} clip{'s' * (options.clips > 1)}"
    return (
        f"{options.out}: {options.frames} frames of {clips}, the first after {1e3 * (times[1] - times[0]):.0f} ms, "
        f"{options.frames / (times[-1] - times[0]):.1f} frames a second"
    )


def find_checkpoint(params: "Params", artifacts: Path, wanted: str) -> tuple[Path, "Checkpoint | None"]:
    """The directory of a checkpoint, and which of `checkpoints` it is; a teacher's directory: by its own sampler.

    Raises:
        ValueError: neither a name nor a directory with a student, or one that is not trained yet.
    """
    known = {name: artifacts / entry.stage / entry.item for name, entry in params.checkpoints.items()}
    directory = known.get(wanted, Path(wanted))
    if not (directory / "student.json").is_file():
        raise ValueError(
            f"checkpoint must be a directory with student.json, or one of {', '.join(known)}, once trained: "
            f"{wanted} ({directory})"
        )
    if wanted in known:
        return directory, params.checkpoints[wanted]
    for name, entry in params.checkpoints.items():
        if known[name].resolve() == directory.resolve() and not entry.few_steps:
            return directory, entry
    return directory, None


def with_settings(sampler: "Sampler", settings: str) -> "Sampler":
    """The sampler with what "num_steps=8,step=ddim,step.eta=0.5" changes.

    A new step or schedule begins from its defaults.

    Raises:
        ValueError: an unknown key, or a value that the sampler refuses.
    """
    from pipeline.config import REGISTRIES
    from pipeline.diffusion.autoregress import Sampler
    from pipeline.diffusion.schedule import SCHEDULES
    from pipeline.diffusion.trajectory import STEPS
    from pipeline.schema import Schema

    if not settings:
        return sampler
    raw = dataclasses.asdict(sampler)
    raw["step"]["name"] = next(name for name, kind in STEPS.items() if type(sampler.step) is kind)
    raw["schedule"]["name"] = next(name for name, kind in SCHEDULES.items() if type(sampler.schedule) is kind)
    for setting in settings.split(","):
        key, equals, value = setting.strip().partition("=")
        if not equals:
            raise ValueError(f"sampler must be KEY=VALUE, several with commas between them, got {setting!r}")
        name, _, inner = key.partition(".")
        if name in ("step", "schedule") and inner:
            raw[name][inner] = _plain(value)
        elif name in ("step", "schedule"):
            raw[name] = {"name": value}
        else:
            raw[key] = _plain(value)
    return Schema(REGISTRIES).build(Sampler, raw, "sampler")


def _plain(text: str) -> Any:
    """A number, null, true or false; else the word itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _timed(parts: Iterator[Any], times: list[float], bar: Any) -> Iterator["np.ndarray"]:
    """Every frame (N, H, W, C) of parts (N, t, C, H, W), and in `times` when it came."""
    for part in parts:
        for frame in part.permute(1, 0, 3, 4, 2).numpy():
            times.append(time.perf_counter())
            bar.update()
            yield frame


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends it, nothing half is left
    sys.exit(main(sys.argv[1:]))
