"""Train and measure a teacher for every objective of the ablation: python -m sweeps.ablate_diffusion

Interrupted, it goes on where it was; a second call finds everything made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ablation import Objective, Units
from pipeline.config import Params
from pipeline.unit import as_plain, digest_of, replace_file, write_json
from stages.entry import ARTIFACTS, REPORTS, stage
from sweeps.parallel import OnShare
from sweeps.runner import NEEDED, InTurn, Made, Outcome, about, check_inputs, end_if_failed, run_all, show

SHARES = {"train": 0.62, "evaluate": 0.29, "spread": 0.09}  # of the time, measured on the default profile
Row = dict[str, Any]


@dataclass(frozen=True)
class Teacher:
    """One task: the units of an objective, and where their inputs are."""

    objective: Objective
    units: Units
    artifacts: Path


def main(params: Params) -> None:
    """All teachers, their table, and the report; exit code 1 when one of them failed."""
    from pipeline.reporting.objectives import as_text, read_objectives
    from pipeline.reporting.page import write_report

    check_inputs(ARTIFACTS)
    objectives = params.ablation.objectives()
    teachers = {one: Teacher(one, params.ablation_units(one), ARTIFACTS) for one in objectives}
    updates = dict.fromkeys(objectives, params.ablation.training.num_steps)
    outcome = run_all(make, teachers, updates, name="ablate-diffusion", noun="teachers")
    if outcome.made:
        write(params, outcome, REPORTS / "ablation")
        show(as_text(read_objectives(REPORTS)))
        print(f"\nReport: {write_report(REPORTS, profile=params.profile)}")
    end_if_failed(outcome, noun="teachers")


def make(teacher: Teacher, on_share: OnShare) -> Made:
    """Train, evaluate, and measure the spread of the loss."""
    inputs = {name: teacher.artifacts / name for name in NEEDED}
    train, evaluate, spread = teacher.units
    units = InTurn(SHARES, on_share)
    student = units.make("train", "teacher", train, {"codec": inputs["codec"]}) / "out"
    trained = {"codec": inputs["codec"], "student": student}
    measured = {"clips": inputs["prepare"], "features": inputs["features"], **trained}
    units.make("evaluate", "evaluate", evaluate, measured)
    units.make("spread", "loss_spread", spread, trained)
    return units.made


def write(params: Params, outcome: Outcome[Objective], target: Path) -> None:
    """diffusion.csv, spread.csv, and what they were made from: run.json, no record.json, which is one unit's."""
    import pandas as pd

    target.mkdir(parents=True, exist_ok=True)
    rows = {
        "diffusion.csv": [teacher_row(objective, units) for objective, units in outcome.made.items()],
        "spread.csv": [row for objective, units in outcome.made.items() for row in spread_rows(objective, units)],
    }
    for name, table in rows.items():
        replace_file(target / name, pd.DataFrame(table).to_csv(index=False, lineterminator="\n"))
    description = {
        "profile": params.profile,
        "codec": digest_of(ARTIFACTS / "codec"),
        "num_clips": params.ablation.num_clips,
        "params": as_plain(params.ablation),
        **about(outcome.made, outcome.failed),
    }
    write_json(target / "run.json", description)


def teacher_row(objective: Objective, made: Made) -> Row:
    """What a teacher reached, the loss that trained it under its own schedule, and what it cost."""
    trained, measured, spread = (made[name]["metrics"] for name in ("train", "evaluate", "spread"))
    bits = measured.get("bits_per_dim", {}).get("teacher_forcing", {})
    fvd, loss = measured["fvd"], spread["training"][objective.schedule]
    return {
        **objective._asdict(),
        "bits_per_dim": bits.get("value"),
        "bits_standard_error": bits.get("standard_error"),
        "excess": fvd["excess"],
        "excess_low": fvd["interval"][0],
        "excess_high": fvd["interval"][1],
        "agreement_second": measured["identity"]["first_to_second"],
        "loss": loss["mean"],
        "loss_relative_sd": loss["relative_sd"],
        "updates": trained["student_updates"],
        "seconds": round(sum(unit["timing"]["seconds"] for unit in made.values()), 1),
    }


def spread_rows(objective: Objective, made: Made) -> list[Row]:
    """The loss of one network, by law of levels and by the schedule that draws them."""
    columns = ("mean", "standard_error", "relative_sd")
    return [
        {**objective._asdict(), "law": law, "drawn_under": name, **{column: summary[column] for column in columns}}
        for law, schedules in made["spread"]["metrics"].items()
        for name, summary in schedules.items()
    ]


if __name__ == "__main__":
    stage(main)
