"""Measure on processes of known density which divergence every cell minimises: python -m sweeps.laboratory

Interrupted, it goes on where it was; a second call finds everything made.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Params
from pipeline.data.processes import Process
from pipeline.laboratory.conclude import Conclusion, conclude, optima_of, over_cells
from pipeline.laboratory.estimators_bias import EstimatorBias
from pipeline.laboratory.exposure import Exposure, predicted_variance
from pipeline.laboratory.flow_map_measure import MeasureFlowMap
from pipeline.laboratory.measure import Measure
from pipeline.laboratory.neural_run import NeuralTask
from pipeline.laboratory.predict import Predict
from pipeline.laboratory.run import Key, LaboratoryRun
from pipeline.reporting.laboratory.page import write_laboratory
from pipeline.reporting.read import PROFILE_OF_RESULTS
from pipeline.unit import as_plain, replace_file, write_json
from stages.entry import REPORTS, stage
from sweeps import laboratory_neural as neural
from sweeps.parallel import OnShare
from sweeps.runner import InTurn, Made, about, end_if_failed, run_all, show

PREDICTED, EXPOSURE = "predicted", "exposure"  # in the place of a cell
NOT_MEASURED = (PREDICTED, EXPOSURE, neural.NEURAL, neural.ESTIMATORS)
PREDICTION_STEPS = 4000  # of the bar, for the predictions of one process
OF_THE_BEST = ("forward_kl", "reverse_kl", "integration_error")
AFTER_THE_FIRST = ("correlation", "reverse_kl_by_frame")
HEADS = ["cell", "on", "settles next to", "away", "derived", "claimed"]
NUM_LEFT = 3  # columns of words, which stand to the left
LEGEND = """\
away: distance from that optimum. derived, claimed: whether it is the one that was derived, or claimed, of the cell.
Every cell is held to its own, so that none is the best. learned: its critics, which are exact elsewhere."""
Row = dict[str, Any]
Unit = Predict | Measure | MeasureFlowMap | Exposure | NeuralTask | EstimatorBias


@dataclass(frozen=True)
class Result:
    """What the files of a unit say, and its curve."""

    made: Made
    curve: list[Row]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.made["unit"]["metrics"]


def main(params: Params) -> None:
    """Every prediction and every measurement, and what they say; exit code 1 when one of them failed."""
    run = params.laboratory
    tasks = tasks_of(run, params.seed)
    updates = {key: num_updates(work) for key, work in tasks.items()}
    outcome = run_all(make, tasks, updates, name="laboratory", noun="units", name_of=words_of)
    if outcome.made:
        conclusions = write(run, params, outcome.made, outcome.failed, REPORTS / "laboratory")
        show(as_text(conclusions))
        if params.profile != PROFILE_OF_RESULTS:
            print(f"\nprofile {params.profile}: these numbers mean nothing", flush=True)
        print(f"\nThe page: {write_laboratory(REPORTS, profile=params.profile)}", flush=True)
    end_if_failed(outcome, noun="units")


def words_of(key: Key) -> str:
    """For people."""
    return "-".join(str(part) for part in key if part != "")


def tasks_of(run: LaboratoryRun, seed: int) -> dict[Key, Unit]:
    """The predictions first: they take longest."""
    tasks: dict[Key, Unit] = {}
    settings = {name: run.settings[name] for name in run.processes}
    for name, setting in sorted(settings.items(), key=lambda entry: -entry[1].process.num_frames):
        tasks[Key(PREDICTED, name, "", seed)] = Predict(setting.process, setting.student)
    tasks |= neural.neural_tasks(run, seed)
    for number in range(seed, seed + run.num_seeds):
        exposures = run.exposure.units(run.training, number, run.num_clips)
        tasks |= {Key(EXPOSURE, name, "exact", number): unit for name, unit in exposures.items()}
    return {**tasks, **{key: run.measure(key) for key in run.keys(seed)}}


def num_updates(work: Unit) -> int:
    """Of the student and of what learns beside it."""
    if isinstance(work, Predict):
        return PREDICTION_STEPS
    if isinstance(work, Exposure):
        return work.measure.training.num_steps
    if isinstance(work, NeuralTask | EstimatorBias):
        return neural.num_updates(work)
    critic_updates = work.loss.critic_updates if isinstance(work, Measure) and work.critics == "learned" else 0
    return work.training.num_steps * (1 + critic_updates)


def make(work: Unit, on_share: OnShare) -> Result:
    """One unit, and of a neural student those that it begins from."""
    if isinstance(work, NeuralTask):
        units = neural.in_turn(work, on_share)
        directory = neural.make_after_origins(work, units)
    else:
        units = InTurn({"unit": 1.0}, on_share)
        directory = units.make("unit", "laboratory", work, {})
    curve = directory / "curve.jsonl"
    rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    return Result(units.made, rows)


def write(
    run: LaboratoryRun, params: Params, made: Mapping[Key, Result], failed: Mapping[Key, str], target: Path
) -> list[Conclusion]:
    """Ten tables of what was predicted, measured and concluded, and what they were made from: run.json."""
    measured = {key: result for key, result in made.items() if key.cell not in NOT_MEASURED}
    exposed = {key: result for key, result in made.items() if key.cell == EXPOSURE}
    of_processes = {key.process: result.metrics for key, result in made.items() if key.cell == PREDICTED}
    predicted = {process: metrics["optima"] for process, metrics in of_processes.items()}
    without = {process: metrics["without"] for process, metrics in of_processes.items()}
    optima = {process: optima_of(found) for process, found in predicted.items()}
    conclusions = conclude(run, {key: result.metrics for key, result in measured.items()}, optima)
    tables: dict[str, Iterable[Row]] = {
        "measured.csv": (measured_row(key, result) for key, result in measured.items()),
        "curves.csv": ({**key._asdict(), **row} for key, result in measured.items() for row in result.curve),
        "predicted.csv": (row for process, found in predicted.items() for row in predicted_rows(process, found)),
        "verdicts.csv": (one.row() for one in conclusions),
        "claims.csv": over_cells(conclusions),
        "exposure.csv": (row for key, result in exposed.items() for row in exposure_rows(key, result, run)),
        **neural.neural_tables(run.neural.process, {key: result.metrics for key, result in made.items()}),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        replace_file(target / name, as_csv(rows))
    reasons = {words_of(key): reason for key, reason in failed.items()}
    said = about({key: result.made for key, result in made.items()}, reasons)
    laws = {name: law_row(run.settings[name].process) for name in run.processes}
    about_it = {"profile": params.profile, "seed": params.seed, "params": as_plain(run), **said}
    write_json(target / "run.json", {**about_it, "laws": laws, "without": without})
    return conclusions


def law_row(process: Process) -> Row:
    """The Gaussians that it mixes: shares (K), means (K, F), covariances (K, F, F)."""
    law = process.law
    return {
        "shares": law.shares.tolist(),
        "means": law.means.tolist(),
        "covariances": law.covariances.tolist(),
    }


def measured_row(key: Key, result: Result) -> Row:
    """What one seed has reached."""
    metrics = dict(result.metrics)
    kept = ";".join(f"{share:.6g}" for share in metrics.pop("kept"))
    seconds = round(result.made["unit"]["timing"]["seconds"], 1)
    return {**key._asdict(), **metrics.pop("parameters"), **metrics, "kept": kept, "seconds": seconds}


def predicted_rows(process: str, found: Mapping[str, Any]) -> list[Row]:
    """A row for every optimum; the first of an objective is the best."""
    rows = []
    for objective, prediction in found.items():
        for rank, optimum in enumerate([prediction["best"], *prediction["others"]]):
            about_best = {} if rank else {name: prediction[name] for name in OF_THE_BEST}
            rows.append(
                {
                    "process": process,
                    "objective": objective,
                    "rank": rank,
                    **optimum["parameters"],
                    "value": optimum["value"],
                    "is_field": prediction["is_field"],
                    "flat": prediction["flat"],
                    **about_best,
                    "kept": "" if rank else ";".join(f"{share:.6g}" for share in prediction["kept"]),
                }
            )
    return rows


def exposure_rows(key: Key, result: Result, run: LaboratoryRun) -> list[Row]:
    """A row for every frame of the roll-outs of one student."""
    parameters, rows = result.metrics["parameters"], []
    samplers = run.exposure.units(run.training, key.seed, run.num_clips)[key.process].samplers
    for name, found in result.metrics["rollouts"].items():
        for frame, expected in enumerate(predicted_variance(parameters, samplers[name], run.exposure.num_frames)):
            after = {column: found[column][frame - 1] if frame else None for column in AFTER_THE_FIRST}
            about_it = {"rollout": name, "seed": key.seed, "frame": frame, **parameters}
            own = {"mean": found["mean"][frame], "variance": found["variance"][frame]}
            rows.append({**about_it, **own, "predicted_variance": expected, **after})
    return rows


def as_csv(rows: Iterable[Row]) -> str:
    import pandas as pd

    return pd.DataFrame(list(rows)).to_csv(index=False, lineterminator="\n")


def as_text(conclusions: list[Conclusion]) -> str:
    """The table of the terminal, and what all processes say of every claim."""
    from pipeline.reporting.sweep_tables import text_table

    table = text_table([HEADS, *map(line_of, conclusions)], num_left=NUM_LEFT)
    lines = [f"{row['claim']} ({row['reading']}): {row['verdict']}" for row in over_cells(conclusions)]
    return "\n".join([table, "", LEGEND, "", "Claims, as the table and as the text of the post have them:", *lines])


def line_of(one: Conclusion) -> list[str]:
    """Of one cell: where it settled, whether that was derived, and what it says of the claims."""
    learned = ", learned" if one.critics == "learned" else ""
    claims = [opinion.judgement.verdict.value for opinion in one.claims.values()]
    return [
        f"{one.cell}{learned}",
        one.process,
        one.identified.nearest,
        f"{one.identified.distance:.3f}",
        one.derivation.judgement.verdict.value if one.derivation else "",
        claims[0] if claims else "",
    ]


if __name__ == "__main__":
    stage(main)
