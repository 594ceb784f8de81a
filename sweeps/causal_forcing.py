"""Begin a causal student in four ways and compare them.

Does regression on the trajectories of a teacher of full attention fail it, as Causal Forcing, arXiv:2602.02214,
claims? Interrupted, it goes on where it was; a second call finds everything made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.causal_forcing import ROLLED, CausalForcing
from pipeline.config import Params
from pipeline.methods.self_forcing import SelfForcing
from pipeline.training.init import CONTEXTS, Setting, Unit, make_all
from pipeline.unit import as_plain, digest_of, replace_file, write_json
from stages.entry import ARTIFACTS, REPORTS, stage
from sweeps.parallel import OnShare
from sweeps.runner import NEEDED, InTurn, Made, Outcome, about, check_inputs, end_if_failed, run_all, show

TEACHERS = {name: f"teacher/{name}" for name in CONTEXTS}
# Of the time, by what a unit's name ends with; trajectories are there when a way to begin asks for them.
SHARES = {"train": 0.0, "heldout": 0.0, "student": 0.3, "measured": 0.1, "residual": 0.01, ROLLED: 0.5}
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Units in order, and where what they begin with lies."""

    units: tuple[Unit, ...]
    given: Mapping[str, Path]


def main(params: Params) -> None:
    """Trajectories, every way to begin, their table, and the report; exit code 1 when one of them failed."""
    from pipeline.reporting.beginnings import as_text, read_beginnings
    from pipeline.reporting.page import write_report

    experiment = params.causal_forcing
    check_inputs(ARTIFACTS, teachers=tuple(TEACHERS))
    setting = Setting(params.denoiser, params.sampler, params.seed, num_threads=1)
    given = {name: ARTIFACTS / name for name in NEEDED} | {n: ARTIFACTS / path for n, path in TEACHERS.items()}
    stored = {name: Task((unit,), given) for name, unit in experiment.trajectories(setting).items()}
    run_all(make, stored, dict.fromkeys(stored, 100), name="trajectories", noun="stores")
    method = SelfForcing(params.sampler)
    tasks = {
        name: Task(experiment.units(name, setting, method, params.evaluate), given) for name in experiment.inits()
    }
    updates = dict.fromkeys(tasks, experiment.training.num_steps + experiment.rollout.num_steps)
    outcome = run_all(make, tasks, updates, name="causal-forcing", noun="inits")
    if outcome.made:
        write(experiment, params, outcome, REPORTS / "causal_forcing")
        show(as_text(read_beginnings(REPORTS)))
        print(f"\nReport: {write_report(REPORTS, profile=params.profile)}")
    end_if_failed(outcome, noun="inits")


def make(task: Task, on_share: OnShare) -> Made:
    """Every unit, each from what the earlier ones made."""
    shares = {unit.name: SHARES[unit.name.rsplit("_", 1)[-1]] for unit in task.units}
    if not any(shares.values()):
        shares = dict.fromkeys(shares, 1.0)
    units = InTurn(shares, on_share)
    make_all(task.units, task.given, lambda unit, inputs: units.make(unit.name, unit.kind, unit.work, inputs))
    return units.made


def write(experiment: CausalForcing, params: Params, outcome: Outcome[str], target: Path) -> None:
    """inits.csv, residuals.csv, and what they were made from: run.json."""
    import pandas as pd

    target.mkdir(parents=True, exist_ok=True)
    tables = {
        "inits.csv": [init_row(name, made) for name, made in outcome.made.items()],
        "residuals.csv": [row for name, made in outcome.made.items() for row in residual_rows(name, made)],
    }
    for name, rows in tables.items():
        replace_file(target / name, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    description = {
        "profile": params.profile,
        "seed": params.seed,
        "codec": digest_of(ARTIFACTS / "codec"),
        "params": as_plain(experiment),
        **about(outcome.made, outcome.failed),
    }
    write_json(target / "run.json", description)


def init_row(name: str, made: Made) -> Row:
    """What a way to begin reached, before and after self forcing, and what both cost."""
    residuals = {attention: made[f"{attention}_residual"]["metrics"] for attention in CONTEXTS}
    return {
        "init": name,
        "updates": made["student"]["metrics"]["student_updates"],
        **reached("", made["student_measured"]["metrics"]),
        **{f"residual_{attention}": residual["mean"] for attention, residual in residuals.items()},
        **{f"residual_{attention}_se": residual["standard_error"] for attention, residual in residuals.items()},
        "rollout_updates": made[ROLLED]["metrics"]["student_updates"],
        **reached("rollout_", made[f"{ROLLED}_measured"]["metrics"]),
        "seconds": round(made["student"]["timing"]["seconds"], 1),
        "rollout_seconds": round(made[ROLLED]["timing"]["seconds"], 1),
    }


def reached(prefix: str, metrics: Mapping[str, Any]) -> Row:
    """The columns of one evaluation."""
    fvd, identity = metrics["fvd"], metrics["identity"]
    found = {
        "excess": fvd["excess"],
        "excess_low": fvd["interval"][0],
        "excess_high": fvd["interval"][1],
        "first_to_second": identity["first_to_second"],
        "first_to_last": identity["first_to_last"],
        "drift_slope": metrics["drift_slope"],
    }
    return {f"{prefix}{column}": value for column, value in found.items()}


def residual_rows(name: str, made: Made) -> list[Row]:
    """What is left of the regression on each teacher's ends, by level, and by frame from noise."""
    rows = []
    for attention in CONTEXTS:
        found = made[f"{attention}_residual"]["metrics"]
        about_it = {"init": name, "teacher": attention}
        by_level = zip(found["levels"], found["by_level"], strict=True)
        rows += [{**about_it, "level": level, "frame": None, "residual": value} for level, value in by_level]
        by_frame = enumerate(found["by_frame_from_noise"])
        rows += [
            {**about_it, "level": found["levels"][0], "frame": index, "residual": value}
            for index, value in by_frame
        ]
    return rows


if __name__ == "__main__":
    stage(main)
