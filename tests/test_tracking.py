"""MLflow shows what the files say, however often and after whatever accident it is brought up to date."""

import csv
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment

from pipeline.lineage import directory_digest
from pipeline.tracking import EXPERIMENT, Ledger, track
from pipeline.unit import canonical_json
from tests.tracked import CURVE, fill_workspace, write_record


@pytest.fixture
def workspace(tmp_path, migrated) -> Path:
    return fill_workspace(tmp_path, migrated)


def client_of(workspace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def experiment_of(workspace: Path) -> Experiment:
    found = client_of(workspace).get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return found


def runs_of(workspace: Path, condition: str = "tags.kind = 'unit'") -> dict:
    runs = client_of(workspace).search_runs([experiment_of(workspace).experiment_id], condition)
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def hold(directory: Path):
    """Be a process that is at work on the unit in `directory`."""
    lock = (directory / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def start_unit(units: Path, fingerprint: str, rows: list[dict]) -> Path:
    directory = units / "teacher" / fingerprint
    directory.mkdir(parents=True, exist_ok=True)
    unit = {"fingerprint": fingerprint, "stage": "teacher", "work": {"num_steps": 100}}
    (directory / "unit.json").write_text(json.dumps(unit))
    (directory / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def test_track_writes_one_run_a_record_under_one_parent(workspace, tmp_path):
    tracked = track(workspace, tmp_path / "work")
    assert tracked.sent == ("7eac4e5", "c0dec")
    assert tracked.num_new == 2
    assert (tracked.pending, tracked.damaged, tracked.reason) == ((), (), "")
    runs = runs_of(workspace)
    assert set(runs) == {"codec", "teacher@causal"}
    (parent,) = runs_of(workspace, "tags.kind = 'profile'").values()
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in [*runs.values(), parent]} == {"FINISHED"}


def test_track_keeps_every_value_of_the_curve(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    run = runs_of(workspace)["codec"]
    history = client_of(workspace).get_metric_history(run.info.run_id, "student_loss")
    with (workspace / "reports" / "codec" / "curve.csv").open() as file:
        expected = [(int(row["step"]), float(row["student_loss"])) for row in csv.DictReader(file)]
    assert sorted((point.step, point.value) for point in history) == expected


def test_track_flattens_results_and_parameters(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    run = runs_of(workspace)["codec"]
    assert run.data.metrics["final.psnr"] == 21.5
    assert run.data.metrics["final.fvd.excess"] == 12.25
    assert run.data.metrics["final.bits_per_dim.teacher_forcing.value"] == 3.5
    assert run.data.metrics["final.bits_per_dim.teacher_forcing.standard_error"] == 0.01
    assert run.data.metrics["final.bits_per_dim.spread.value"] == 0.25
    assert "final.nothing" not in run.data.metrics
    assert run.data.tags["final.network"] == "both"
    interval = client_of(workspace).get_metric_history(run.info.run_id, "final.fvd.interval")
    assert [(point.step, point.value) for point in interval] == [(0, 11.0), (1, 13.5)]
    wanted = {"type": "Codec", "num_steps": "13000", "loss.type": "DMD", "loss.levels": "[0.2, 0.9]"}
    assert run.data.params == wanted


def test_track_says_where_a_result_comes_from(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    tags = runs_of(workspace)["codec"].data.tags
    record = json.loads((workspace / "reports" / "codec" / "record.json").read_text())
    lock = json.loads((workspace / "dvc.lock").read_text())["stages"]["codec"]
    sha256 = {name: hashlib.sha256(canonical_json(value).encode()).hexdigest() for name, value in
              {"work": record["work"], "lock": lock}.items()}  # fmt: skip
    assert tags["fingerprint"] == "c0dec"
    assert (tags["params.sha256"], tags["dvc.lock"]) == (sha256["work"], sha256["lock"])
    assert (tags["input.clips"], tags["sha256.codec.safetensors"]) == ("aa11", "bb22")
    assert (tags["stage"], tags["item"], tags["profile"]) == ("codec", "", "default")
    assert (tags["git.revision"], tags["git.dirty"]) == ("5ea5", "true")  # of the making, whatever is there now
    tags = runs_of(workspace)["teacher@causal"].data.tags
    assert (tags["git.revision"], tags["git.dirty"], tags["dvc.lock"]) == ("none", "none", "none")


def test_a_run_leads_to_its_stage_and_the_stage_to_its_run(workspace, tmp_path):
    tracked = track(workspace, tmp_path / "work")
    assert tracked.fingerprints == {"codec": "c0dec", "teacher@causal": "7eac4e5"}
    for stage, run in runs_of(workspace).items():
        assert tracked.runs[stage] == run.info.run_id
        assert (run.data.tags["dvc.stage"], run.data.tags["mlflow.source.name"]) == (stage, f"dvc repro {stage}")
    assert track(workspace, tmp_path / "work").runs == tracked.runs


def test_final_numbers_stand_at_the_last_step_of_what_they_judge(workspace, tmp_path):
    judged = write_record(workspace, "evaluate", "codec", "e7a1", curve=[])
    record = json.loads((judged / "record.json").read_text())
    record |= {"has_curve": False, "inputs": {"student": directory_digest({"codec.safetensors": "bb22"})}}
    (judged / "record.json").write_text(json.dumps(record))
    (workspace / "reports" / "teacher" / "causal" / "record.json").unlink()  # of the same product
    track(workspace, tmp_path / "work")
    for run in runs_of(workspace).values():
        history = client_of(workspace).get_metric_history(run.info.run_id, "final.fvd.excess")
        assert [(point.step, point.value) for point in history] == [(12990, 12.25)]


def test_a_run_of_an_older_layout_is_written_anew(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    old = runs_of(workspace)["codec"]
    client_of(workspace).set_tag(old.info.run_id, "layout", "1")
    assert track(workspace, tmp_path / "work").num_new == 1
    assert runs_of(workspace)["codec"].info.run_id != old.info.run_id


def test_track_shows_when_a_unit_ran_and_its_pictures(workspace, tmp_path):
    finished = tmp_path / "work" / "codec" / "c0dec"
    finished.mkdir(parents=True)
    (finished / "metrics.json").write_text("{}")
    os.utime(finished / "metrics.json", (1_000_000, 1_000_000))
    track(workspace, tmp_path / "work")
    run = runs_of(workspace)["codec"]
    assert run.info.end_time == 1_000_000_000
    assert run.info.end_time - run.info.start_time == 90_500
    names = {file.path for file in client_of(workspace).list_artifacts(run.info.run_id)}
    assert names == {"record.json", "curve.csv", "samples.png"}


def test_track_twice_writes_nothing_new(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    before = {name: run.info.run_id for name, run in runs_of(workspace).items()}
    again = track(workspace, tmp_path / "work")
    assert again.num_new == 0
    assert again.sent == ("7eac4e5", "c0dec")
    assert {name: run.info.run_id for name, run in runs_of(workspace).items()} == before


def test_track_repairs_a_run_that_was_left_half_written(workspace, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "log_curve", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            track(workspace, tmp_path / "work")
    (half,) = runs_of(workspace).values()
    assert half.info.status == "RUNNING"
    assert track(workspace, tmp_path / "work").num_new == 2
    runs = runs_of(workspace)
    assert set(runs) == {"codec", "teacher@causal"}
    assert half.info.run_id not in {run.info.run_id for run in runs.values()}


def test_track_deletes_a_duplicate(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    run = runs_of(workspace)["codec"]
    client = client_of(workspace)
    copy = client.create_run(run.info.experiment_id, tags=run.data.tags, run_name="codec")
    client.set_terminated(copy.info.run_id)
    assert track(workspace, tmp_path / "work").num_new == 0
    assert set(runs_of(workspace)) == {"codec", "teacher@causal"}


def test_track_marks_runs_of_other_parameters_and_takes_them_back(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    write_record(workspace, "teacher", "causal", "0ther", curve=CURVE[:2])
    assert track(workspace, tmp_path / "work").num_new == 1
    current = "tags.stage = 'teacher' and tags.current = '{}'"
    old = runs_of(workspace, current.format("false"))["teacher@causal"]
    assert old.data.tags["fingerprint"] == "7eac4e5"
    write_record(workspace, "teacher", "causal", "7eac4e5", curve=CURVE[:3])
    assert track(workspace, tmp_path / "work").num_new == 0
    back = runs_of(workspace, current.format("true"))["teacher@causal"]
    assert back.info.run_id == old.info.run_id


def test_track_builds_everything_anew_without_its_database(workspace, tmp_path, migrated):
    track(workspace, tmp_path / "work")
    other = tmp_path / "other"
    shutil.copytree(workspace / "reports", other / "reports")
    shutil.copyfile(migrated, other / "mlflow.db")
    assert track(other, tmp_path / "work").num_new == 2
    assert runs_of(other)["codec"].data.params == runs_of(workspace)["codec"].data.params


def test_track_makes_the_experiment_anew_where_the_project_was_moved(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    moved = tmp_path / "moved"
    shutil.copytree(workspace / "reports", moved / "reports")
    shutil.copyfile(workspace / "mlflow.db", moved / "mlflow.db")
    assert track(moved, tmp_path / "work").num_new == 2
    run = runs_of(moved)["codec"]
    assert run.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())


def test_a_running_unit_is_followed_until_it_ends(workspace, tmp_path):
    units = tmp_path / "work"
    directory = start_unit(units, "11fe", [{"step": 1, "student_loss": 0.5}])
    with hold(directory):
        assert track(workspace, units).running == ("11fe",)
        rows = [{"step": step, "student_loss": 0.5 / step} for step in (1, 2, 3)]
        start_unit(units, "11fe", rows)
        with (directory / "curve.jsonl").open("a") as curve:
            curve.write('{"step": 4, "stud')  # being written
        track(workspace, units)
        (run,) = runs_of(workspace, "tags.kind = 'running' and tags.current = 'true'").values()
        assert run.info.status == "RUNNING"
        history = client_of(workspace).get_metric_history(run.info.run_id, "student_loss")
        assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25), (3, 0.5 / 3)]
    assert track(workspace, units).running == ()
    assert not runs_of(workspace, "tags.kind = 'running'")


def test_a_damaged_record_is_named_and_the_others_are_sent(workspace, tmp_path):
    (workspace / "reports" / "codec" / "curve.csv").unlink()
    tracked = track(workspace, tmp_path / "work")
    assert tracked.sent == ("7eac4e5",)
    (line,) = tracked.damaged
    assert str(workspace / "reports" / "codec" / "curve.csv") in line


def test_pictures_that_a_server_refuses_leave_their_run_pending(workspace, tmp_path, monkeypatch):
    def refuse(client, run_id, directory):
        if "codec" in directory:
            raise requests.HTTPError("507 Server Error: Insufficient Storage")

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    tracked = track(workspace, tmp_path / "work")
    assert "c0dec" in tracked.pending
    assert tracked.reason == "507 Server Error: Insufficient Storage"
    monkeypatch.undo()
    assert track(workspace, tmp_path / "work").sent == ("7eac4e5", "c0dec")
    assert set(runs_of(workspace)) == {"codec", "teacher@causal"}


def test_the_saved_view_compares_what_was_measured(workspace, tmp_path):
    page = track(workspace, tmp_path / "work").page
    experiment = experiment_of(workspace)
    assert f"/experiments/{experiment.experiment_id}/" in page
    view = json.loads(experiment.tags["mlflow.sharedViewState.forcing-grid"])
    charts = json.loads(view["state"])["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts if chart["type"] == "BAR"] == [
        "final.fvd.excess",
        "final.bits_per_dim.teacher_forcing.value",
        "final.psnr",
    ]
    assert [chart["metricKey"] for chart in charts if chart["type"] == "LINE"] == ["student_loss"]
