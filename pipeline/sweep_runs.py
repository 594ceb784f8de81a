"""Sweeps as runs of MLflow: a parent with the tables and figures, and a child a trial, found by fingerprint."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cell_models import write_models
from pipeline.ledger import Ledger, is_whole
from pipeline.lineage import revision_tags, stage_tags
from pipeline.mlflow_values import flatten
from pipeline.sweep_notes import note_of_failure, note_of_sweep
from pipeline.sweep_records import Sweep, Trial
from pipeline.unit import canonical_json, digest_of

if TYPE_CHECKING:
    from mlflow.entities import Run

FIGURES = "figures"  # the tag and the folder of the report's figures
ANIMATION = "samples.gif"
NOTE = "mlflow.note.content"
AWAY = "none: its unit is not on this machine"


def write_sweep(ledger: Ledger, sweep: Sweep, units: Path) -> tuple[str, bool]:
    """A sweep as a run with a child a trial: its id, and whether it had to be written.

    Others are no longer current. What may be there only later is added: figures, animations, models.
    """
    condition = f"tags.kind = 'sweep' and tags.sweep = '{sweep.name}' and tags.profile = '{sweep.profile}'"
    kept: Run | None = None
    for run in ledger.runs(condition):
        is_it = run.data.tags["fingerprint"] == sweep.fingerprint
        is_kept = is_whole(run) and not (is_it and kept is not None)
        current = str(is_it).lower()
        if is_kept and run.data.tags["current"] != current:
            for one in (*_children(ledger, run.info.run_id), run):
                ledger.client.set_tag(one.info.run_id, "current", current)
        if not is_kept:
            _delete(ledger, run)
        elif is_it:
            kept = run
    children = _by_name(ledger, kept.info.run_id) if kept else {}
    if kept and any(trial.name not in children for trial in sweep.trials):
        _delete(ledger, kept)
        kept = None
    run_id = kept.info.run_id if kept else _begin(ledger, sweep, units)
    parent, children = ledger.client.get_run(run_id), children if kept else _by_name(ledger, run_id)
    _log_figures(ledger, sweep, parent)
    for trial in sweep.trials:
        _log_animation(ledger, trial, children[trial.name], units)
    models = write_models(ledger, sweep, children, units)
    ledger.say(parent, {NOTE: note_of_sweep(sweep, run_id, models.note), **models.tags})
    return run_id, kept is None


def _children(ledger: Ledger, run_id: str) -> "list[Run]":
    return list(ledger.runs(f"tags.`mlflow.parentRunId` = '{run_id}'"))


def _by_name(ledger: Ledger, run_id: str) -> "dict[str, Run]":
    return {str(run.info.run_name): run for run in _children(ledger, run_id)}


def _delete(ledger: Ledger, run: "Run") -> None:
    for one in (*_children(ledger, run.info.run_id), run):
        ledger.client.delete_run(one.info.run_id)


def _begin(ledger: Ledger, sweep: Sweep, units: Path) -> str:
    """The run of a sweep, ended when all its children are there."""
    tags = {
        "sweep": sweep.name,
        "profile": sweep.profile,
        "fingerprint": sweep.fingerprint,
        "current": "true",
        **({"budget": sweep.budget} if sweep.budget else {}),
        **revision_tags(*sweep.revisions),
        **stage_tags(sweep.stage, ledger.locks, sweep.command),
    }
    above = {"kind": "sweep", "mlflow.parentRunId": ledger.parent_of(sweep.profile)}
    run_id, now = ledger.begin(f"sweep {sweep.name}", {**tags, **above}), int(time.time() * 1000)
    said = {f"failed.{name}": reason for name, reason in sweep.failed.items()}
    said |= {"missing": canonical_json(sweep.missing)} if sweep.missing else {}
    means = [(name, value, now, 0) for name, value in sweep.means.items()]
    ledger.log(run_id, means, params=flatten(sweep.params), tags=said)
    ledger.client.log_artifacts(run_id, str(sweep.directory))
    for trial in sweep.trials:
        _write_trial(ledger, trial, {**tags, "kind": "trial", "mlflow.parentRunId": run_id}, now, units)
    ledger.client.set_terminated(run_id)
    return run_id


def _write_trial(ledger: Ledger, trial: Trial, tags: Mapping[str, str], now: int, units: Path) -> None:
    """One child, in three calls: made with its tags, its numbers at the last update of its student, ended."""
    start = now - int(1000 * trial.metrics.get("seconds", 0.0)) if trial.curve else now
    own = {**tags, **trial.tags, **_revision(trial, units)}
    if trial.has_failed:
        own |= {NOTE: note_of_failure(trial.name, trial.tags["reason"])}
    run_id = ledger.begin(trial.name, own, start)
    last = int(trial.metrics.get("student_updates", 0))
    final = [(name, value, now, last) for name, value in trial.metrics.items()]
    points = ledger.points_of(trial.curve, start, now)
    ledger.log(run_id, [*final, *points], params=trial.params)
    ledger.client.set_terminated(run_id, status="FAILED" if trial.has_failed else None, end_time=now)


def _revision(trial: Trial, units: Path) -> dict[str, str]:
    """Of the code that made this very trial; where its unit is not here, those of the whole sweep stand."""
    path = units / "evaluate" / trial.tags.get("evaluate_fingerprint", "") / "unit.json"
    return revision_tags(json.loads(path.read_text()).get("revision")) if path.exists() else {}


def _log_animation(ledger: Ledger, trial: Trial, run: "Run", units: Path) -> None:
    """The clips that the trial's own evaluation drew."""
    fingerprint = trial.tags.get("evaluate_fingerprint")
    if fingerprint is None or run.data.tags.get("animation") == ANIMATION:
        return
    path = units / "evaluate" / fingerprint / "show" / ANIMATION
    if path.exists():
        ledger.client.log_artifact(run.info.run_id, str(path))
    ledger.say(run, {"animation": ANIMATION if path.exists() else AWAY})


def _log_figures(ledger: Ledger, sweep: Sweep, run: "Run") -> None:
    """What the report drew of it, which may be drawn only after the sweep was tracked, or anew."""
    before = json.loads(run.data.tags.get(FIGURES, "{}"))
    digests = {path.name: digest_of(path)[:8] for path in sweep.figures}
    for path in sweep.figures:
        if digests[path.name] != before.get(path.name):
            ledger.client.log_artifact(run.info.run_id, str(path), FIGURES)
    if digests:
        ledger.say(run, {FIGURES: canonical_json(digests)})
