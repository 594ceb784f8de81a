"""Sweeps as runs of MLflow: a parent with the tables and figures, and a child a trial, found by fingerprint."""

import time
from typing import TYPE_CHECKING

from pipeline.lineage import lock_digests
from pipeline.mlflow_values import flatten
from pipeline.sweep_records import Sweep, Trial
from pipeline.unit import canonical_json, digest_of

if TYPE_CHECKING:
    from mlflow.entities import Run

    from pipeline.tracking import Ledger

FIGURES = "figures"  # the tag and the folder of the report's figures
NOTES = {  # of the parent, by the name of the sweep
    "grid": """# The sweep: cells x seeds, by the settings of the grid and tuned

A child a trial. Tags: `cell` (method-loss; `short`, by initials), `method`, `loss`, `seed`; `phase` (*start*: what
the cells of a method start from; *default*: by the settings of the grid; *tuning*: a trial of the search, judged on
the split `metric`; *tuned*: the chosen setting with the seeds of the results); `split` of the clips that judged;
`status` and `reason` of those that failed; `budget` that every training had; `train_fingerprint` and
`evaluate_fingerprint`, of its units; `git.revision` and `git.dirty` of the code; `dvc.lock` of the stage `grid`.

Metrics of a child: `excess` (FVD minus that of real clips; lower is better) ranks the cells; the losses are its
curve, by step. Metrics of this run: means over seeds as `phase.cell.metric`, with `.low` and `.high`, the ends of
their intervals. Artifacts: the tables, and below `figures/` what the report draws of them.
""",
}


def write_sweep(ledger: "Ledger", sweep: Sweep) -> bool:
    """A sweep as a run with a child a trial; whether it had to be written. Others are no longer current."""
    condition = f"tags.kind = 'sweep' and tags.sweep = '{sweep.name}' and tags.profile = '{sweep.profile}'"
    kept: Run | None = None
    for run in ledger.runs(condition):
        trials = list(ledger.runs(f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"))
        is_it = run.data.tags["fingerprint"] == sweep.fingerprint
        if run.info.status != "FINISHED" or (kept is not None and is_it):
            for one in (*trials, run):
                ledger.client.delete_run(one.info.run_id)
            continue
        kept = run if is_it else kept
        for one in (run, *trials) if run.data.tags["current"] != str(is_it).lower() else ():
            ledger.client.set_tag(one.info.run_id, "current", str(is_it).lower())
    run_id = kept.info.run_id if kept else _begin(ledger, sweep)
    _log_figures(ledger, sweep, run_id, kept.data.tags.get(FIGURES) if kept else None)
    if kept is None:
        ledger.client.set_terminated(run_id)
    return kept is None


def _begin(ledger: "Ledger", sweep: Sweep) -> str:
    """The run of a sweep with all its children, not yet ended."""
    tags = {"sweep": sweep.name, "profile": sweep.profile, "fingerprint": sweep.fingerprint, "current": "true"}
    if sweep.origin:
        tags |= {**sweep.origin, "dvc.lock": lock_digests(ledger.workspace).get(sweep.name, "none")}
    above = {"kind": "sweep", "mlflow.parentRunId": ledger.parent_of(sweep.profile)}
    note = {"mlflow.note.content": NOTES[sweep.name]} if sweep.name in NOTES else {}
    own = {**tags, **above, **note}
    run = ledger.client.create_run(ledger.experiment, tags=own, run_name=f"sweep {sweep.name}")
    now, run_id = int(time.time() * 1000), run.info.run_id
    said = {f"failed.{name}": reason for name, reason in sweep.failed.items()}
    said |= {"missing": canonical_json(sweep.missing)} if sweep.missing else {}
    means = [(name, value, now, 0) for name, value in sweep.means.items()]
    ledger.log(run_id, means, params=flatten(sweep.params), tags=said)
    ledger.client.log_artifacts(run_id, str(sweep.directory))
    for trial in sweep.trials:
        _write_trial(ledger, trial, {**tags, "kind": "trial", "mlflow.parentRunId": run_id}, now)
    return run_id


def _write_trial(ledger: "Ledger", trial: Trial, tags: dict[str, str], now: int) -> None:
    """One child, in three calls: made with its tags, its numbers, ended."""
    start = now - int(1000 * trial.metrics.get("seconds", 0.0)) if trial.curve else now
    own = {**tags, **trial.tags}
    child = ledger.client.create_run(ledger.experiment, start_time=start, tags=own, run_name=trial.name)
    final = [(name, value, now, 0) for name, value in trial.metrics.items()]
    points = ledger.points_of(trial.curve, start, now)
    ledger.log(child.info.run_id, [*final, *points], params=trial.params)
    status = "FAILED" if trial.has_failed else None
    ledger.client.set_terminated(child.info.run_id, status=status, end_time=now)


def _log_figures(ledger: "Ledger", sweep: Sweep, run_id: str, before: str | None) -> None:
    """What the report drew of it, which may be drawn only after the sweep was tracked, or anew."""
    digest = canonical_json({path.name: digest_of(path)[:16] for path in sweep.figures})
    if sweep.figures and digest != before:
        for path in sweep.figures:
            ledger.client.log_artifact(run_id, str(path), FIGURES)
        ledger.client.set_tag(run_id, FIGURES, digest)
