"""`python -m pipeline.laboratory predict --process B` prints what each objective makes of a student, as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = """\
names of objectives: p is the student, q data; w weighs noise levels t ~ U[0.02, 0.98] of flow matching
  forward_kl, reverse_kl           KL(q || p), KL(p || q) of clean clips
  jensen_shannon                   of clean clips; a saturating GAN descends it
  softened_reverse_kl              2 KL((p + q) / 2 || q); a non-saturating GAN descends it
  NAME_averaged, NAME_averaged_x0  of noised clips, mean over t with w = 1 (DMD in score space), and with
                                   w = sigma^2 / alpha^2 (DMD in x0 space), of fisher sigma^4 / alpha^2
  NAME_averaged_independent        every frame at a level of its own
  entropy_B                        KL(p || q) + B times the entropy of p
  fisher                           mean squared difference of the scores; fisher_averaged_x0 is SiD at alpha = 1/2
  sid_A, dmd_normalised            fields of SiD at alpha = A, and of DMD with its normaliser in many pixels
  wasserstein                      squared Wasserstein-2 distance, up to two frames or one Gaussian
  l2_W_M                           denoising loss with weighting W (elbo, eps, flow) under the method M
  add, kd, pagoda, consistency_*   what these losses descend or settle on
  teacher_forcing_NAME             of each next frame beside true frames
  diffusion_forcing_NAME           of clips of data of which the student restored some frames
  self_forcing_detached_NAME       where the gradient stops at the student's own earlier frames

printed: parameters of the optimum; value in nats, null for a field, which has none; others: local optima;
integration_error: how far quadrature may have moved it; flat: parameters that it does not fix; forward_kl and
reverse_kl there; kept: share of each component of data among the student's clips; without: objectives of which
there is no optimum, and why"""


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
    predict = tasks.add_parser(
        "predict",
        help="the optimum of every objective, computed",
        epilog=NAMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    from pipeline.laboratory.optima import NoOptimumError
    from pipeline.laboratory.predict import Predictions
    from pipeline.rules import one_of

    torch.set_num_threads(1)  # tensors are small
    settings = load_params(options.params).laboratory.settings
    one_of(settings, process=options.process)
    process = settings[options.process].process
    if options.frames is not None:
        process = dataclasses.replace(process, num_frames=options.frames)
    student = options.student or settings[options.process].student
    predictions = Predictions(process, student, num_pixels=options.pixels)
    names = options.objective or predictions.names
    for name in names:
        one_of(predictions.names, objective=name)
    optima, without = {}, {}
    for name in tqdm(names, unit="objective", disable=not sys.stderr.isatty()):
        try:
            prediction = dataclasses.asdict(predictions.of(name))
        except NoOptimumError as reason:
            without[name] = str(reason)
        else:
            optima[name] = {**prediction.pop("best"), **prediction}
    return {
        "process": options.process,
        "num_frames": process.num_frames,
        "num_pixels": options.pixels,
        "student": student,
        "optima": optima,
        "without": without,  # an optimum among these students, and why
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
