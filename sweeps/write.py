"""The tables of a sweep: its trials, what the seeds say of cells and pairs, and what differs beside them."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Params
from pipeline.sweep.audit import CellSpecs, Difference, differences
from pipeline.sweep.budget import Updates
from pipeline.sweep.plan import (
    DEFAULT_PHASE,
    START_PHASE,
    TUNED_PHASE,
    TUNING_PHASE,
    Trial,
    cell_named,
    name_of,
)
from pipeline.sweep.published import PUBLISHED
from pipeline.sweep.statistics import agreement, intervals, pairs, ranks
from pipeline.unit import as_plain, digest_of, replace_file, write_json
from stages.entry import ARTIFACTS
from sweeps.runner import about
from sweeps.trial import CURVES, Result, Row, Task

PHASES = (START_PHASE, DEFAULT_PHASE, TUNING_PHASE, TUNED_PHASE)
COMPARED = (DEFAULT_PHASE, TUNED_PHASE)
DRIFT = {"window": ("start", "fvd"), "frame": ("index", "distance")}  # names of the evaluation's lists
COSTS = ("student_updates", "critic_updates", "clips_seen")
Scores = dict[str, dict[str, dict[str, list[float]]]]  # by phase, metric and cell: one a seed


def write(
    params: Params,
    planned: Mapping[Trial, Task],
    results: Mapping[Trial, Result],
    failed: Mapping[Trial, str],
    target: Path,
) -> None:
    """All files of reports/grid, each whole or not at all; of a sweep that was interrupted, what it has."""
    import pandas as pd

    target.mkdir(parents=True, exist_ok=True)
    trials = sorted(planned, key=place_of)
    scores = scores_of({trial: results[trial] for trial in trials if trial in results})
    found = list(audits(params, results))
    tables = {
        "trials": [
            row_of(trial, planned[trial], results.get(trial), failed.get(trial))
            for trial in trials
            if trial in results or trial in failed
        ],
        "cells": list(cell_rows(params, scores)),
        "pairs": list(pair_rows(params, scores, found)),
        "ranks": list(rank_rows(params, scores)),
        "orders": list(order_rows(params, scores)),
        "audit": [row for phase, a, b, some in found for row in audit_rows(phase, a, b, some)],
        "drift": [row for trial in trials if trial in results for row in drift_rows(trial, results[trial])],
        "curves": [curve_row(trial, row) for trial in trials if trial in results for row in results[trial].curve],
    }
    for name, rows in tables.items():
        text = pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")  # whole numbers stay whole
        replace_file(target / f"{name}.csv", text if rows else "")
    np.savez_compressed(target / "samples.npz", **samples_of(results))  # pyright: ignore[reportArgumentType]
    run = params.sweep
    said = about({trial: result.made for trial, result in results.items()}, {})
    write_json(
        target / "run.json",
        {
            **said,
            "profile": params.profile,
            "seed": params.seed,
            "codec": digest_of(ARTIFACTS / "codec"),
            "params": as_plain(run),
            "grid": as_plain(params.grid),
            "budget": run.budget.words,
            "excluded": {
                name_of(cell): why
                for cell, why in run.selected(params.grid.methods, params.grid.losses).excluded.items()
            },
            "failed": {trial.name: reason for trial, reason in failed.items()},
            "missing": [trial.name for trial in trials if trial not in results and trial not in failed],
            "seconds": {"trials": round(sum(seconds_of(result) for result in results.values()), 1)},
        },
    )


def place_of(trial: Trial) -> tuple[int, str, str, int, str]:
    """Its place among the rows."""
    cell = trial.cell
    return PHASES.index(trial.phase), cell.method, cell.loss, trial.seed, trial.setting.words


def measures_of(result: Result) -> dict[str, float]:
    """By the names of the columns."""
    measured = result.made["evaluate"]["metrics"]
    coverage = measured["coverage"]
    return {
        "excess": measured["fvd"]["excess"],
        "fvd": measured["fvd"]["value"],
        "first_to_second": measured["identity"]["first_to_second"],
        "first_to_last": measured["identity"]["first_to_last"],
        **{name: coverage[name] for name in ("precision", "recall", "coverage")},
        "drift_slope": measured["drift_slope"],
        "calls_per_frame": measured["sampling"]["calls_per_frame"],
    }


def sampling_of(result: Result) -> Row:
    """What sampling took, while other trials ran on the same machine."""
    sampling = result.made["evaluate"]["metrics"]["sampling"]
    return {"latency_ms": 1000 * sampling["latency_s"], "frames_per_s": sampling["frames_per_s"]}


def seconds_of(result: Result) -> float:
    """Of both units, over all their interruptions."""
    return sum(parts["timing"]["seconds"] for parts in result.made.values())


def row_of(trial: Trial, task: Task, result: Result | None, reason: str | None) -> Row:
    """A trial: its setting as it ran, what it reached and what it cost."""
    train = task.train
    row: Row = {
        **trial.cell._asdict(),
        "phase": trial.phase,
        "seed": trial.seed,
        "split": trial.split,
        "learning_rate": train.training.optimizer.learning_rate if train else None,
        "critic_rate_factor": (trial.setting.critic_rate_factor or 1.0) if task.has_critics else None,
        "critic_updates_a_step": train.loss.critic_updates if train and task.has_critics else None,
        "num_steps": train.training.num_steps if train else None,
        "status": "done" if result else "failed",
        "reason": reason,
    }
    if result is None:
        return row
    made = result.made
    trained = made.get("train", {}).get("metrics", {})
    return {
        **row,
        **measures_of(result),
        **{name: trained.get(name, 0) for name in COSTS},
        "tflop": round(trained.get("flops", 0) / 1e12, 3),
        "seconds": round(made["train"]["timing"]["seconds"], 1) if trained else 0.0,
        **sampling_of(result),
        "evaluate_seconds": round(made["evaluate"]["timing"]["seconds"], 1),
        "train_fingerprint": made["train"]["unit"]["fingerprint"] if trained else None,
        "evaluate_fingerprint": made["evaluate"]["unit"]["fingerprint"],
    }


def scores_of(results: Mapping[Trial, Result]) -> Scores:
    """What is judged on the test clips."""
    scores: Scores = {phase: {} for phase in (START_PHASE, *COMPARED)}
    for trial, result in results.items():
        for metric, value in measures_of(result).items() if trial.phase in scores else ():
            scores[trial.phase].setdefault(metric, {}).setdefault(name_of(trial.cell), []).append(value)
    return scores


def cell_rows(params: Params, scores: Scores) -> Iterator[Row]:
    """Mean and interval of every cell by every metric."""
    run = params.sweep
    for phase, by_metric in scores.items():
        for metric, of_cells in by_metric.items():
            found = intervals(
                of_cells, confidence=run.confidence, num_bootstraps=run.num_bootstraps, seed=params.seed
            )
            for name, interval in found.items():
                method, loss = name.split("-")
                yield {"phase": phase, "method": method, "loss": loss, "metric": metric, **interval._asdict()}


def pair_rows(params: Params, scores: Scores, found: list[tuple[str, str, str, list[Difference]]]) -> Iterator[Row]:
    """Every pair of cells, with what confounds it."""
    confounds = {
        (phase, a, b): "; ".join(one.path for one in some if one.kind == "confounds") for phase, a, b, some in found
    }
    for phase in COMPARED:
        for pair in pairs(scores[phase].get("excess", {}), confidence=params.sweep.confidence):
            yield {"phase": phase, **pair._asdict(), "confounds": confounds.get((phase, pair.a, pair.b), "")}


def rank_rows(params: Params, scores: Scores) -> Iterator[Row]:
    """Every cell's rank."""
    run = params.sweep
    for phase in COMPARED:
        excess = scores[phase].get("excess", {})
        for rank in ranks(excess, confidence=run.confidence, num_draws=run.num_bootstraps, seed=params.seed):
            yield {"phase": phase, **rank._asdict()}


def order_rows(params: Params, scores: Scores) -> Iterator[Row]:
    """Agreement with each published order of which at least two cells are here."""
    run = params.sweep
    for phase in COMPARED:
        excess = scores[phase].get("excess", {})
        for name, published in PUBLISHED.items():
            if len(set(excess) & set(published)) < 2:
                continue
            said = agreement(
                excess, published, confidence=run.confidence, num_draws=run.num_bootstraps, seed=params.seed
            )
            row = {"phase": phase, "published": name, **said._asdict(), "num_cells": len(said.cells)}
            yield {**row, "cells": "; ".join(said.cells)}


def audits(params: Params, results: Mapping[Trial, Result]) -> Iterator[tuple[str, str, str, list[Difference]]]:
    """What differs between the units of every pair of cells at one seed: phase, the two, the differences."""
    equal_updates = isinstance(params.sweep.budget, Updates)
    for phase in COMPARED:
        specs: dict[str, dict[int, CellSpecs]] = {}
        for trial, result in results.items():
            if trial.phase == phase:
                units = CellSpecs(result.made["train"]["unit"], result.made["evaluate"]["unit"])
                specs.setdefault(name_of(trial.cell), {})[trial.seed] = units
        for a, b in combinations(sorted(specs), 2):
            shared = sorted(set(specs[a]) & set(specs[b]))
            if shared:
                two = (specs[name][shared[0]] for name in (a, b))
                yield phase, a, b, differences(*two, equal_updates=equal_updates, tuned=phase == TUNED_PHASE)


def audit_rows(phase: str, a: str, b: str, found: list[Difference]) -> Iterator[Row]:
    """A difference each."""
    for one in found:
        yield {"phase": phase, "a": a, "b": b, **one._asdict()}


def drift_rows(trial: Trial, result: Result) -> Iterator[Row]:
    """Distances along the rollout, judged on the test clips: of windows, by first frame, and of single frames."""
    measured = result.made["evaluate"]["metrics"]
    name = {**trial.cell._asdict(), "phase": trial.phase, "seed": trial.seed}
    for measure, (at, distance) in DRIFT.items() if trial.phase != TUNING_PHASE else ():
        found = measured[f"{measure}s"]
        for place, value, floor in zip(found[at], found[distance], found["floor"], strict=True):
            yield {**name, "measure": measure, "at": place, "distance": value, "floor": floor}


def curve_row(trial: Trial, row: Row) -> Row:
    """One report of a training."""
    name = {**trial.cell._asdict(), "phase": trial.phase, "seed": trial.seed}
    return {**name, "step": row["step"], **{metric: row.get(metric) for metric in CURVES}}


def samples_of(results: Mapping[Trial, Result]) -> dict[str, Any]:
    """The first clips of the first seed of every cell, tuned where it was, and of what they start from."""
    found: dict[str, Any] = {}
    for phase in (START_PHASE, *COMPARED):
        of_phase = [trial for trial in results if trial.phase == phase]
        for trial in sorted(of_phase, key=lambda trial: -trial.seed):
            found[name_of(trial.cell)] = results[trial].clips
    return dict(sorted(found.items(), key=lambda item: cell_named(item[0])))
