"""`python -m pipeline.laboratory predict --process B` prints what each objective makes of a student, as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for what cannot be predicted."""
    options = _parser().parse_args(arguments)
    try:
        predicted = _predict(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(predicted, indent=2, allow_nan=False) + "\n")
    return 0


class _Parser(argparse.ArgumentParser):
    """One line says what is wrong; the usage is for --help."""

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.exit(2, f"{message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pipeline.laboratory", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True, parser_class=_Parser)
    predict = tasks.add_parser("predict", help="the optimum of every objective, computed")
    predict.add_argument("--process", required=True, help="by its name in laboratory.settings of params.yaml")
    predict.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: params.yaml")
    predict.add_argument("--student", help="gaussian, frame_by_frame or tied; default: that of the process")
    predict.add_argument("--frames", type=int, help="of a clip; default: that of the process")
    predict.add_argument("--pixels", type=int, default=1, help="independent ones, with which values grow")
    predict.add_argument("--objective", action="append", help="only this one; may be repeated")
    return parser


def _predict(options: argparse.Namespace) -> dict[str, object]:
    import dataclasses

    import torch
    from tqdm import tqdm

    from pipeline.config import load_params
    from pipeline.laboratory.flow_map import flow_map_optima
    from pipeline.laboratory.optima import Laboratory, NoOptimumError, objectives_for
    from pipeline.rules import one_of

    torch.set_num_threads(1)  # tensors are small
    settings = load_params(options.params).laboratory.settings
    one_of(settings, process=options.process)
    process = settings[options.process].process
    if options.frames is not None:
        process = dataclasses.replace(process, num_frames=options.frames)
    student = options.student or settings[options.process].student
    laboratory = Laboratory(process.law, student, num_pixels=options.pixels)
    flow_maps = flow_map_optima(process, student)
    names = options.objective or [*objectives_for(process.law), *flow_maps]
    optima, without = {}, []
    for name in tqdm(names, unit="objective", disable=not sys.stderr.isatty()):
        try:
            prediction = dataclasses.asdict(flow_maps.get(name) or laboratory.predict(name))
        except NoOptimumError:
            without.append(name)
        else:
            optima[name] = {**prediction.pop("best"), **prediction}
    return {
        "process": options.process,
        "num_frames": process.num_frames,
        "num_pixels": options.pixels,
        "student": student,
        "optima": optima,
        "without": without,  # an optimum among these students
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
