"""Train and measure a teacher for every objective of the ablation: python -m sweeps.ablate_diffusion

Interrupted, it goes on where it was; a second call finds everything made.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.ablation import Objective, Units
from pipeline.config import Params
from pipeline.interfaces import Progress
from pipeline.unit import Work, as_plain, digest_of, replace_file, run_unit, write_json
from stages.entry import ARTIFACTS, REPORTS, stage
from sweeps.parallel import OnShare, in_parallel

NEEDED = ("prepare", "features", "codec")
PARTS = ("unit", "metrics", "timing")  # files of a unit
SHARES = {"train": 0.62, "evaluate": 0.29, "spread": 0.09}  # of the time, measured on the default profile
FIRST = "run python3 -m pipeline repro first"
FAILED, INTERRUPTED = 1, 130
Made = dict[str, dict[str, Any]]  # by unit: what its files say
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
    teachers = [Teacher(one, params.ablation_units(one), ARTIFACTS) for one in params.ablation.objectives()]
    try:
        made, failed = train_all(teachers, num_steps=params.ablation.training.num_steps)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from here\n")
        sys.exit(INTERRUPTED)
    if made:
        write(params, made, failed, REPORTS / "ablation")
        print(as_text(read_objectives(REPORTS)), flush=True)
        print(f"\nReport: {write_report(REPORTS, profile=params.profile)}")
    if failed:
        sys.stderr.write(f"{len(failed)} of {len(teachers)} teachers failed: {'; '.join(map(str, failed))}\n")
        sys.exit(FAILED)


def check_inputs(artifacts: Path) -> None:
    """Whether the run has made what the teachers are trained on and measured by.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one is of older code.
    """
    from pipeline.models.clip_encoder import load_clip_encoder
    from pipeline.models.codec import load_codec
    from pipeline.models.digit_reader import load_digit_reader

    for name in NEEDED:
        if not (artifacts / name).is_dir():
            raise FileNotFoundError(f"{artifacts / name} must be there: {FIRST}")
    for load, name in ((load_codec, "codec"), (load_clip_encoder, "features"), (load_digit_reader, "features")):
        try:
            load(artifacts / name)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{artifacts / name} must be made by the code of today: {FIRST}") from error


def make(teacher: Teacher, on_share: OnShare) -> Made:
    """Train, evaluate, and measure the spread of the loss."""
    inputs = {name: teacher.artifacts / name for name in NEEDED}
    made: Made = {}
    done = 0.0

    def finished(name: str, kind: str, work: Work, given: dict[str, Path]) -> Path:
        def tell(progress: Progress) -> None:
            on_share(done + SHARES[name] * progress.step / progress.num_steps)

        directory = run_unit(kind, work, given, on_progress=tell)
        made[name] = {part: json.loads((directory / f"{part}.json").read_text()) for part in PARTS}
        return directory

    train, evaluate, spread = teacher.units
    trained = {
        "codec": inputs["codec"],
        "student": finished("train", "teacher", train, {"codec": inputs["codec"]}) / "out",
    }
    done = SHARES["train"]
    finished(
        "evaluate", "evaluate", evaluate, {"clips": inputs["prepare"], "features": inputs["features"], **trained}
    )
    done += SHARES["evaluate"]
    finished("spread", "loss_spread", spread, trained)
    return made


def train_all(teachers: list[Teacher], *, num_steps: int) -> tuple[dict[Objective, Made], dict[Objective, str]]:
    """What was made, and why the rest was not; a bar of all steps, evaluation counted by its time."""
    made, failed, shares = {}, {}, [0.0] * len(teachers)
    total = num_steps * len(teachers)
    with tqdm(desc="ablate-diffusion", total=total, unit="step", disable=None, dynamic_ncols=True) as bar:
        for event in in_parallel(make, teachers, num_processes=os.cpu_count() or 1):
            objective = teachers[event.index].objective
            if event.failure is not None:
                failed[objective] = event.failure
                bar.write(f"{objective}: {event.failure}", file=sys.stderr)
            elif event.is_last:
                made[objective] = event.result
                bar.set_postfix_str(f"{len(made)} of {len(teachers)} teachers", refresh=False)
            shares[event.index] = 1.0 if event.is_last else event.share
            bar.update(int(sum(shares) * num_steps) - bar.n)
    ordered = {teacher.objective: made[teacher.objective] for teacher in teachers if teacher.objective in made}
    return ordered, failed


def write(params: Params, made: dict[Objective, Made], failed: dict[Objective, str], target: Path) -> None:
    """diffusion.csv, spread.csv, and what they were made from: run.json, no record.json, which is one unit's."""
    import pandas as pd

    target.mkdir(parents=True, exist_ok=True)
    rows = {
        "diffusion.csv": [teacher_row(objective, units) for objective, units in made.items()],
        "spread.csv": [row for objective, units in made.items() for row in spread_rows(objective, units)],
    }
    for name, table in rows.items():
        replace_file(target / name, pd.DataFrame(table).to_csv(index=False, lineterminator="\n"))
    units = [unit["unit"] for parts in made.values() for unit in parts.values()]
    revisions = {json.dumps(unit["revision"], sort_keys=True) for unit in units}
    about = {
        "profile": params.profile,
        "codec": digest_of(ARTIFACTS / "codec"),
        "num_clips": params.ablation.num_clips,
        "params": as_plain(params.ablation),
        "versions": units[0]["versions"],
        "revisions": [json.loads(revision) for revision in sorted(revisions)],
        "failed": {str(objective): reason for objective, reason in failed.items()},
    }
    write_json(target / "run.json", about)


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
