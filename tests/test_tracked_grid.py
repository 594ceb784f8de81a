"""The sweep of the grid in MLflow: a child a trial with its curve, the parent with means and figures, its view."""

import csv
import fcntl
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.mlflow_values import cell_tags
from pipeline.sweep_notes import note_of_sweep
from pipeline.sweep_records import Sweep
from pipeline.tracking import EXPERIMENT, track
from tests.reporting.sweep_files import CELLS, METRICS, REASON, write_sweep
from tests.tracked import fill_workspace

FEW = (("diffusion_forcing", "l2"), ("self_forcing", "dmd"))
SHORT = {"bidirectional": "B", "teacher_forcing": "TF", "diffusion_forcing": "DF", "self_forcing": "SF"}
FAILED = (("self_forcing", "dmd", "tuned", 3),)
TOLD = {  # columns of trials.csv that are not measured
    *("method", "loss", "phase", "seed", "split", "learning_rate", "critic_rate_factor", "critic_updates_a_step"),
    *("num_steps", "status", "reason", "train_fingerprint", "evaluate_fingerprint"),
}


def with_sweep(directory, migrated, **which) -> Path:
    workspace = fill_workspace(directory, migrated)
    write_sweep(workspace / "reports", **{"cells": FEW, "failed": FAILED, **which})
    return workspace


def client_of(workspace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def runs(workspace: Path, condition: str) -> list:
    found = client_of(workspace).get_experiment_by_name(EXPERIMENT)
    return list(client_of(workspace).search_runs([found.experiment_id], condition))


def trials_of(workspace: Path) -> list[dict[str, str]]:
    with (workspace / "reports" / "grid" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, migrated) -> Path:
    directory = with_sweep(tmp_path_factory.mktemp("tracked"), migrated)
    lock = {"stages": {"grid": {"cmd": "python -m sweeps.run"}, "codec": {"cmd": "x"}}}
    (directory / "dvc.lock").write_text(json.dumps(lock))
    (directory / "reports" / "figures").mkdir()
    for name in ("sweep_matrix.svg", "sweep_matrix.csv", "sweep_drift.png", "matrix.svg", "matrix.csv", "cost.svg"):
        (directory / "reports" / "figures" / name).write_text(name)
    tracked = track(directory, directory / "work")
    assert (tracked.damaged, tracked.reason, tracked.pending) == ((), "", ())
    return directory


def test_every_trial_is_a_child_with_its_numbers_setting_and_tags(workspace):
    (sweep,) = runs(workspace, "tags.kind = 'sweep' and tags.sweep = 'grid'")
    children = {run.data.tags["evaluate_fingerprint"]: run for run in runs(workspace, "tags.status = 'done'")}
    rows = [row for row in trials_of(workspace) if row["status"] == "done"]
    assert len(children) == len(rows) == 4 * 3 + 2 * (3 + 4 + 3) - 1
    for row in rows:
        run = children[row["evaluate_fingerprint"]]
        tags, params = run.data.tags, run.data.params
        assert run.info.status == "FINISHED"
        assert tags["mlflow.parentRunId"] == sweep.info.run_id
        assert tags["cell"] == params["cell"] == f"{row['method']}-{row['loss']}"
        assert tags["short"] == f"{SHORT[row['method']]}-{row['loss'].upper()}"
        for name in ("method", "loss", "seed", "phase", "split", "train_fingerprint"):
            assert tags.get(name, "") == row[name]
        assert tags["budget"].startswith("as many operations as")
        assert (tags["git.revision"], tags["git.dirty"]) == ("5ea5", "false")
        numbers = {name: float(text) for name, text in row.items() if text and name not in TOLD}
        assert run.data.metrics.items() >= numbers.items()
        assert set(METRICS) < numbers.keys()
        for name in ("learning_rate", "critic_rate_factor", "critic_updates_a_step", "num_steps"):
            assert params.get(name, "") == row[name]
        assert run.info.run_name.startswith(f"{tags['cell']} {row['phase']} seed {row['seed']}")
    assert len({run.info.run_name for run in children.values()}) == len(rows)


def test_every_child_of_the_sweep_leads_to_its_stage_and_to_the_code(workspace):
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    for run in (sweep, *runs(workspace, "tags.kind = 'trial'")):
        tags = run.data.tags
        assert (tags["dvc.stage"], tags["mlflow.source.name"]) == ("grid", "dvc repro grid")
        assert (tags["git.revision"], tags["mlflow.source.git.commit"]) == ("5ea5", "5ea5")
    tracked = track(workspace, workspace / "work")
    assert (tracked.runs["grid"], tracked.fingerprints["grid"]) == (
        sweep.info.run_id,
        sweep.data.tags["fingerprint"],
    )


def test_final_numbers_stand_where_the_curve_ends(workspace):
    client = client_of(workspace)
    for run in runs(workspace, "tags.cell = 'self_forcing-dmd' and tags.phase = 'tuned' and tags.status = 'done'"):
        ends = {max(p.step for p in client.get_metric_history(run.info.run_id, name))
                for name in ("excess", "student_loss", "critic_loss")}  # fmt: skip
        assert ends == {60} == {int(run.data.metrics["student_updates"])}
    start = runs(workspace, "tags.phase = 'start'")[0]
    assert [point.step for point in client.get_metric_history(start.info.run_id, "excess")] == [0]


def test_a_failed_trial_is_failed_and_says_why(workspace):
    (run,) = runs(workspace, "tags.status = 'failed'")
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", REASON)
    assert run.data.tags["mlflow.note.content"] == f"# {run.info.run_name} failed\n\n{REASON}\n"
    assert run.info.run_name == "self_forcing-dmd tuned seed 3"
    assert "excess" not in run.data.metrics
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    assert sweep.data.tags["failed.self_forcing-dmd tuned seed 3"] == REASON


def test_a_trial_has_its_own_curve_by_step(workspace):
    (run,) = runs(workspace, "tags.cell = 'self_forcing-dmd' and tags.phase = 'tuned' and tags.seed = '2'")
    history = client_of(workspace).get_metric_history(run.info.run_id, "student_loss")
    with (workspace / "reports" / "grid" / "curves.csv").open(newline="") as file:
        own = [row for row in csv.DictReader(file) if row["method"] == "self_forcing"]
    expected = [
        (int(row["step"]), float(row["student_loss"]))
        for row in own
        if (row["phase"], row["seed"]) == ("tuned", "2")
    ]
    assert expected
    assert sorted((point.step, point.value) for point in history) == expected
    times = [point.timestamp for point in sorted(history, key=lambda point: point.step)]
    assert times == sorted(times)
    assert run.info.start_time <= times[0] < times[-1] <= run.info.end_time


def test_the_parent_has_means_tables_figures_and_a_note(workspace):
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    with (workspace / "reports" / "grid" / "cells.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = f"{row['phase']}.{row['method']}-{row['loss']}.{row['metric']}"
            for end, suffix in (("mean", ""), ("low", ".low"), ("high", ".high")):
                assert sweep.data.metrics[f"{name}{suffix}"] == float(row[end])
    client = client_of(workspace)
    files = {file.path for file in client.list_artifacts(sweep.info.run_id)}
    assert {"cells.csv", "pairs.csv", "audit.csv", "run.json", "figures"} < files
    figures = [file.path for file in client.list_artifacts(sweep.info.run_id, "figures")]
    assert figures == [
        f"figures/{name}"
        for name in ("matrix.csv", "matrix.svg", "sweep_drift.png", "sweep_matrix.csv", "sweep_matrix.svg")
    ]
    assert sweep.data.params["num_clips"] == "1024"
    assert len(sweep.data.tags["dvc.lock"]) == 64
    assert {run.data.tags["dvc.lock"] for run in runs(workspace, "tags.kind = 'trial'")} == {
        sweep.data.tags["dvc.lock"]
    }


def test_a_second_call_writes_nothing_but_figures_that_changed(workspace, monkeypatch):
    assert track(workspace, workspace / "work").num_new == 0
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    sent = []
    monkeypatch.setattr(MlflowClient, "log_artifact", lambda *given: sent.append(Path(given[2]).name))
    (workspace / "reports" / "figures" / "sweep_pairs.svg").write_text("<svg/>")
    (workspace / "reports" / "figures" / "matrix.csv").write_text("drawn anew")
    assert track(workspace, workspace / "work").num_new == 0
    assert sent == ["matrix.csv", "sweep_pairs.svg"]
    assert track(workspace, workspace / "work").num_new == 0
    assert len(sent) == 2
    assert [run.info.run_id for run in runs(workspace, "tags.kind = 'sweep'")] == [sweep.info.run_id]


def test_the_view_that_opens_shows_method_by_loss_and_another_the_stages(workspace):
    page = track(workspace, workspace / "work").page
    assert "viewStateShareKey=forcing-grid-tuned&" in page
    tags = client_of(workspace).get_experiment_by_name(EXPERIMENT).tags
    views = {key.rpartition(".")[2]: value for key, value in tags.items() if "sharedViewState" in key}
    assert set(views) == {"forcing-grid", "forcing-grid-running", "forcing-grid-default", "forcing-grid-tuned"}
    assert all(len(value) < 20_000 for value in views.values())  # MLflow takes no longer ones
    states = {key: json.loads(json.loads(value)["state"]) for key, value in views.items()}
    tuned = states["forcing-grid-tuned"]
    assert tuned["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "short"}]
    assert tuned["compareRunCharts"][0]["metricKey"] == "excess"
    shown = runs(workspace, tuned["searchFilter"])
    assert {run.data.tags["cell"] for run in shown} == {"-".join(cell) for cell in FEW}
    assert {run.data.tags["phase"] for run in shown} == {"tuned"}
    kinds = {run.data.tags["kind"] for run in runs(workspace, states["forcing-grid"]["searchFilter"])}
    assert kinds == {"unit", "sweep"}


def test_the_note_of_the_sweep_has_the_matrix_what_failed_and_the_way_to_the_stage(workspace):
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    note, means = sweep.data.tags["mlflow.note.content"], sweep.data.metrics
    assert "| excess, tuned | l2 | dmd |" in note
    l2 = means["tuned.diffusion_forcing-l2.excess"]
    ends = [means[f"tuned.diffusion_forcing-l2.excess.{end}"] for end in ("low", "high")]
    assert f"| diffusion_forcing | {l2:.1f} [{ends[0]:.1f}, {ends[1]:.1f}] | - |" in note
    assert f"get-artifact?path=figures/matrix.svg&run_uuid={sweep.info.run_id}" in note
    assert f"## Failed: 1\n\n- self_forcing-dmd tuned seed 3: {REASON}\n" in note
    assert "Still to be made" not in note
    for word in ("`phase`", "`animation`", "`dvc.stage`", "`git.revision`", "mlartifacts/runs.json"):
        assert word in note


def test_long_lists_of_a_note_are_cut(tmp_path):
    missing = tuple(f"self_forcing-dmd tuned seed {seed}" for seed in range(200))
    sweep = Sweep(tmp_path / "grid", "grid", "default", "f", {}, {}, (), missing=missing)
    note = note_of_sweep(sweep, "id", "")
    assert "## Still to be made: 200" in note
    assert "and 190 more" in note
    assert len(note) < 5000


def test_a_sweep_that_is_not_finished_is_tracked_as_far_as_it_is(tmp_path, migrated):
    missing, left = ["self_forcing-dmd default seed 2"], [("self_forcing", "dmd", "default", 2)]
    which = {"phases": ("default",), "missing": missing, "left": left, "failed": ()}
    workspace = with_sweep(tmp_path, migrated, num_seeds=2, **which)
    page = track(workspace, tmp_path / "work").page
    assert "viewStateShareKey=forcing-grid-default&" in page
    (sweep,) = runs(workspace, "tags.kind = 'sweep'")
    assert json.loads(sweep.data.tags["missing"]) == missing
    assert f"## Still to be made: 1\n\n- {missing[0]}\n" in sweep.data.tags["mlflow.note.content"]
    assert "default.self_forcing-dmd.excess" in sweep.data.metrics
    assert "default.self_forcing-dmd.excess.low" not in sweep.data.metrics  # of one seed: infinite
    assert len(runs(workspace, "tags.kind = 'trial'")) == 3
    write_sweep(workspace / "reports", phases=("default",), cells=FEW, failed=())
    assert track(workspace, tmp_path / "work").num_new == 1
    current = runs(workspace, "tags.kind = 'trial' and tags.current = 'true'")
    assert len(current) == len(trials_of(workspace))
    assert len(runs(workspace, "tags.kind = 'trial' and tags.current = 'false'")) == 3


def test_a_damaged_curve_is_named_and_the_rest_is_sent(tmp_path, migrated):
    workspace = with_sweep(tmp_path, migrated)
    (workspace / "reports" / "grid" / "curves.csv").write_text("method,step\nself_forcing\n")
    tracked = track(workspace, tmp_path / "work")
    assert tracked.sent == ("7eac4e5", "c0dec")
    (line,) = tracked.damaged
    assert "grid/curves.csv is damaged" in line


def test_a_running_training_is_named_by_its_cell_and_seed(tmp_path, migrated):
    workspace, units = fill_workspace(tmp_path, migrated), tmp_path / "work"
    kinds = {"method": "methods.self_forcing.SelfForcing", "loss": "losses.dmd.Dmd"}
    work = {axis: {"type": f"pipeline.{kind}"} for axis, kind in kinds.items()}
    for stage, fingerprint, of in (("cell", "1a", {**work, "seed": 2}), ("evaluate", "2b", {"num_clips": 8})):
        (units / stage / fingerprint).mkdir(parents=True)
        unit = {"stage": stage, "fingerprint": fingerprint, "work": of}
        (units / stage / fingerprint / "unit.json").write_text(json.dumps(unit))
    (units / "cell" / "1a" / "curve.jsonl").write_text('{"step": 1, "student_loss": 0.5}\n')
    with (units / "cell" / "1a" / ".lock").open("w") as one, (units / "evaluate" / "2b" / ".lock").open("w") as two:
        for lock in (one, two):
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert track(workspace, units).running == ("1a", "2b")
    cell, other = sorted(runs(workspace, "tags.kind = 'running'"), key=lambda run: run.info.run_name)[::-1]
    assert cell.info.run_name == "self_forcing-dmd seed 2, running"
    assert (cell.data.tags["cell"], cell.data.tags["seed"]) == ("self_forcing-dmd", "2")
    assert cell.data.metrics["student_loss"] == 0.5
    assert other.info.run_name == "evaluate, running"
    assert "cell" not in other.data.tags


def test_the_tags_of_every_cell_are_its_names_in_the_grid():
    from pipeline.losses import LOSSES
    from pipeline.methods import METHODS

    for method, loss in CELLS:
        kinds = (("method", METHODS[method]), ("loss", LOSSES[loss]))
        work = {axis: {"type": f"{kind.__module__}.{kind.__qualname__}"} for axis, kind in kinds}
        tags = cell_tags({**work, "seed": 1})
        assert (tags["method"], tags["loss"], tags["cell"]) == (method, loss, f"{method}-{loss}")
    assert cell_tags({"type": "x", "loss": {"type": "pipeline.losses.dmd.Dmd"}, "seed": 1}) == {}
