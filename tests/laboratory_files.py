"""The files of a laboratory, written by the real writer from made-up measurements: no training, no quadrature."""

import dataclasses
from functools import cache

import numpy as np

from pipeline.config import parse_params
from tests.parameters import raw

NAMES = {"A": ("m", "s"), "D": ("m1", "s1", "c", "m2", "s2"), "L": ("s1", "c", "s")}
OPTIMA = {  # as they are, to three digits
    "A": {
        "forward_kl": (0.5, 1.09),
        "forward_kl_averaged": (0.5, 1.09),
        "l2_elbo_bidirectional": (0.5, 1.09),
        "reverse_kl": (0.148, 0.631),
        "reverse_kl_averaged": (0.323, 0.786),
        "jensen_shannon": (0.339, 0.859),
        "jensen_shannon_averaged": (0.444, 0.973),
        "softened_reverse_kl": (0.098, 0.578),
        "softened_reverse_kl_averaged": (0.208, 0.666),
        "entropy_0.5": (0.035, 0.38),
    },
    "D": {
        "forward_kl": (0.5, 1.09, 0.363, 0.043, 0.572),
        "teacher_forcing_forward_kl_averaged": (0.5, 1.09, 0.363, 0.043, 0.572),
        "l2_elbo_teacher_forcing": (0.5, 1.09, 0.363, 0.043, 0.572),
        "reverse_kl": (0.087, 0.577, 0.914, 0.01, 0.317),
        "reverse_kl_averaged": (0.209, 0.668, 0.861, 0.006, 0.339),
        "self_forcing_detached_reverse_kl_averaged": (0.209, 0.668, 0.861, 0.006, 0.339),
        "teacher_forcing_reverse_kl_averaged": (0.323, 0.786, 0.461, -0.004, 0.358),
    },
    "L": {
        "forward_kl": (1.0, 0.833, 0.553),
        "l2_elbo_teacher_forcing": (1.0, 0.833, 0.553),
        "l2_flow_bidirectional": (1.007, 0.858, 0.517),
        "l2_elbo_diffusion_forcing_causal": (1.002, 0.866, 0.501),
        "reverse_kl": (0.973, 0.861, 0.498),
        "reverse_kl_averaged": (0.99, 0.875, 0.48),
        "self_forcing_detached_reverse_kl_averaged": (0.852, 0.769, 0.535),
        "entropy_0.5": (0.688, 0.861, 0.352),
    },
}
ENDS = {  # cell -> process -> the objective near whose optimum its students end, or the point
    "bidirectional-l2_elbo": {"A": "forward_kl"},
    "bidirectional-l2_flow": {"L": "l2_flow_bidirectional"},
    "diffusion_forcing-l2_elbo": {"L": "l2_elbo_diffusion_forcing_causal"},
    "bidirectional-dmd": {"A": "reverse_kl_averaged"},
    "bidirectional-gan_saturating": {"A": "jensen_shannon_averaged"},
    "bidirectional-gan_non_saturating": {"A": "softened_reverse_kl_averaged"},
    "teacher_forcing-l2_elbo": {"D": "forward_kl", "L": "forward_kl"},
    "teacher_forcing-dmd": {"D": "teacher_forcing_reverse_kl_averaged"},
    "diffusion_forcing_clean-dmd": {"D": (0.17, 0.569, 0.774, -0.019, 0.23)},
    "self_forcing-dmd": {
        "D": "self_forcing_detached_reverse_kl_averaged",
        "L": "self_forcing_detached_reverse_kl_averaged",
    },
}
LEARNED = {"bidirectional-gan_saturating": {"A": (0.47, 0.99)}}
MODES = {"A": (0.66, 0.34), "D": (0.6, 0.4), "L": (1.0,)}
FILES = ("run.json", "measured.csv", "curves.csv", "predicted.csv", "verdicts.csv", "claims.csv", "exposure.csv")
NUM_STEPS, REPORT_EVERY = 100, 20
VERSIONS = {"torch": "2.13", "numpy": "2.3"}
REVISION = {"commit": "0123abc", "dirty": False}


@cache
def default_params():
    return parse_params(raw())


def point_of(process, end):
    values = OPTIMA[process][end] if isinstance(end, str) else end
    return dict(zip(NAMES[process], values, strict=True))


def result_of(metrics, curve=()):
    from sweeps.laboratory import Result

    unit = {"metrics": metrics, "unit": {"versions": VERSIONS, "revision": REVISION}, "timing": {"seconds": 1.0}}
    return Result({"unit": unit}, list(curve))


def predictions(process):
    """What the unit of predictions would say: one optimum an objective."""
    found = {}
    for objective in OPTIMA[process]:
        found[objective] = {
            "best": {"parameters": point_of(process, objective), "value": 0.1},
            "others": [],
            "is_field": False,
            "flat": False,
            "forward_kl": 0.2,
            "reverse_kl": 0.3,
            "integration_error": 1e-6,
            "kept": MODES[process],
        }
    return found


def measurement(process, end, seed):
    """One seed's student: a thousandth from its end, on a way from broad to there."""
    rng = np.random.default_rng(seed)
    at = {name: value + 1e-3 * float(rng.normal()) for name, value in point_of(process, end).items()}
    curve = [
        {
            "step": step,
            **{name: value + 0.2 * np.exp(-step / 20) for name, value in at.items()},
            "student_loss": 0.1,
        }
        for step in range(REPORT_EVERY, NUM_STEPS + 1, REPORT_EVERY)
    ]
    kept = MODES[process]
    if isinstance(end, str) and len(kept) > 1:  # the narrower, the less of the rare mode
        rare = 0.31 * at[NAMES[process][1]]
        kept = (1 - rare, rare)
    metrics = {"parameters": at, "kept": kept, "forward_kl": 0.21, "reverse_kl": 0.31, "jensen_shannon": 0.05}
    return result_of(metrics, curve)


def roll_outs(name, num_frames):
    """Variances that climb, but for self forcing."""
    frames = np.arange(num_frames)
    climb = 0.0 if name.startswith("self") else 0.25
    numbers = {"mean": 0.001 * frames, "variance": 1 + climb * (1 - np.exp(-frames / 5))}
    after = {
        "correlation": np.full(num_frames - 1, 0.9),
        "reverse_kl_by_frame": np.full(num_frames - 1, climb / 20),
    }
    return {name: values.tolist() for name, values in (numbers | after).items()}


def write_laboratory_files(
    reports, *, processes=("A", "D", "L"), profile="default", failed=None, ends=None, num_seeds=3, without=None
):
    """What `python3 -m pipeline laboratory` leaves behind. ends: what differs from ENDS. without: of all."""
    from sweeps.laboratory import EXPOSURE, PREDICTED, Key, write

    params = dataclasses.replace(default_params(), profile=profile)
    run = params.laboratory
    cells = {name: run.cells[name] for name in ENDS}
    run = dataclasses.replace(run, cells=cells, processes=tuple(processes), num_seeds=num_seeds)
    made = {
        Key(PREDICTED, process, "", 0): result_of({"optima": predictions(process), "without": without or {}})
        for process in processes
    }
    for seed in range(num_seeds):
        for critics, settled in (("exact", {**ENDS, **(ends or {})}), ("learned", LEARNED)):
            for cell, by_process in settled.items():
                for process, end in by_process.items():
                    if process in processes:
                        made[Key(cell, process, critics, seed)] = measurement(process, end, seed)
        for name, unit in run.exposure.units(run.training, seed, run.num_clips).items():
            rolled = {one: roll_outs(one, run.exposure.num_frames) for one in unit.samplers}
            students = {"s1": 1.0, "c": 0.9, "s": 0.436}
            made[Key(EXPOSURE, name, "exact", seed)] = result_of({"parameters": students, "rollouts": rolled})
    directory = reports / "laboratory"
    write(run, params, made, failed or {}, directory)
    return directory
