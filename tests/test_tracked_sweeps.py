"""Sweeps in MLflow: a run each, a child a trial, the last one current."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.tracking import EXPERIMENT, Ledger, track
from tests.tracked import fill_workspace

HEAD = "cell,process,critics,claimed,verdict,nearest,distance,m_half_width"
ROWS = (
    "self_forcing-dmd,D,exact,reverse_kl,refuted,reverse_kl_averaged,0.002,0.01",
    "bidirectional-sid,A,learned,,,fisher_averaged_x0,0.011,inf",
)


def write_laboratory(workspace: Path, *, rows=ROWS, failed=None) -> Path:
    directory = workspace / "reports" / "laboratory"
    directory.mkdir(parents=True, exist_ok=True)
    revisions = [{"commit": "5ea5", "dirty": False}, {"commit": "7a1e", "dirty": True}]
    about = {
        "profile": "default",
        "failed": failed or {},
        "revisions": revisions,
        "params": {"num_seeds": 3, "rules": {"margin": 2.0}},
    }
    (directory / "run.json").write_text(json.dumps(about))
    (directory / "verdicts.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return directory


@pytest.fixture
def workspace(tmp_path, migrated) -> Path:
    write_laboratory(fill_workspace(tmp_path, migrated), failed={"bidirectional-kd-A-exact-0": "out of memory"})
    return tmp_path


def runs(workspace: Path, condition: str) -> list:
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return list(client.search_runs([found.experiment_id], condition))


def test_a_trial_has_its_numbers_as_metrics_and_its_words_as_tags(workspace, tmp_path):
    tracked = track(workspace, tmp_path / "work")
    assert len(tracked.sent) == 3
    [sweep] = runs(workspace, "tags.kind = 'sweep'")
    assert sweep.info.run_name == "sweep laboratory"
    assert sweep.info.status == "FINISHED"
    assert sweep.data.params["rules.margin"] == "2.0"
    assert (sweep.data.tags["git.revision"], sweep.data.tags["git.dirty"]) == ("5ea5, 7a1e", "true")
    assert (sweep.data.tags["dvc.stage"], sweep.data.tags["dvc.lock"]) == ("laboratory", "none")
    assert "mlflow.source.git.commit" not in sweep.data.tags  # which of the two?
    assert sweep.data.tags["failed.bidirectional-kd-A-exact-0"] == "out of memory"
    [parent] = runs(workspace, "tags.kind = 'profile'")
    assert sweep.data.tags["mlflow.parentRunId"] == parent.info.run_id
    trials = {run.info.run_name: run for run in runs(workspace, "tags.kind = 'trial'")}
    assert set(trials) == {"self_forcing-dmd D exact", "bidirectional-sid A learned"}
    refuted, open_ended = trials["self_forcing-dmd D exact"], trials["bidirectional-sid A learned"]
    assert refuted.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert refuted.data.tags["verdict"] == "refuted"
    assert refuted.data.metrics == {"distance": 0.002, "m_half_width": 0.01}
    assert open_ended.data.metrics == {"distance": 0.011}
    assert "verdict" not in open_ended.data.tags
    assert open_ended.data.tags["m_half_width"] == "inf"
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    assert {file.path for file in client.list_artifacts(sweep.info.run_id)} == {"run.json", "verdicts.csv"}


def test_a_sweep_that_is_no_stage_of_dvc_names_its_command(workspace, tmp_path):
    directory = workspace / "reports" / "causal_forcing"
    directory.mkdir()
    (directory / "run.json").write_text(json.dumps({"profile": "default", "failed": {}}))
    (directory / "inits.csv").write_text("init,excess\nteacher,16.5\n")
    track(workspace, tmp_path / "work")
    [sweep] = runs(workspace, "tags.sweep = 'causal_forcing' and tags.kind = 'sweep'")
    tags = sweep.data.tags
    assert (tags["dvc.stage"], tags["dvc.lock"], tags["git.revision"]) == ("none", "none", "none")
    assert tags["mlflow.source.name"] == "python3 -m pipeline causal-forcing"


def test_a_second_call_writes_nothing_and_another_run_replaces_the_first(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    assert track(workspace, tmp_path / "work").num_new == 0
    write_laboratory(workspace, rows=ROWS[:1])
    assert track(workspace, tmp_path / "work").num_new == 1
    current = runs(workspace, "tags.kind = 'trial' and tags.current = 'true'")
    assert [run.info.run_name for run in current] == ["self_forcing-dmd D exact"]
    assert len(runs(workspace, "tags.kind = 'trial' and tags.current = 'false'")) == 2
    write_laboratory(workspace, failed={"bidirectional-kd-A-exact-0": "out of memory"})
    assert track(workspace, tmp_path / "work").num_new == 0  # the first is taken back
    assert len(runs(workspace, "tags.kind = 'trial' and tags.current = 'true'")) == 2
    assert len(runs(workspace, "tags.kind = 'sweep' and tags.current = 'true'")) == 1


def test_a_sweep_that_was_left_half_written_is_written_anew(workspace, tmp_path, monkeypatch):
    def fail(*given, **named):
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "log", fail)
        assert "the disk is full" in track(workspace, tmp_path / "work").reason
    assert track(workspace, tmp_path / "work").pending == ()
    assert len(runs(workspace, "tags.kind = 'sweep'")) == 1
    assert len(runs(workspace, "tags.kind = 'trial'")) == 2


def test_a_sweep_that_lost_a_trial_is_written_anew(workspace, tmp_path):
    track(workspace, tmp_path / "work")
    lost = runs(workspace, "tags.kind = 'trial'")[0]
    MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}").delete_run(lost.info.run_id)
    assert track(workspace, tmp_path / "work").num_new == 1
    assert len(runs(workspace, "tags.kind = 'trial'")) == 2
    assert len(runs(workspace, "tags.kind = 'sweep'")) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda directory: (directory / "run.json").unlink(), "run.json cannot be read: No such file"),
        (lambda directory: (directory / "run.json").write_text("{}"), "run.json is damaged: it lacks 'profile'"),
        (
            lambda directory: (directory / "verdicts.csv").write_text(f"{HEAD}\na,b\n"),
            "verdicts.csv is damaged: a row",
        ),
    ],
)
def test_a_damaged_sweep_is_named_and_the_rest_is_sent(workspace, tmp_path, damage, says):
    damage(workspace / "reports" / "laboratory")
    tracked = track(workspace, tmp_path / "work")
    assert len(tracked.sent) == 2
    [line] = tracked.damaged
    assert says in line
