"""The stage `track` says what MLflow holds, and passes where a server does not."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from mlflow import MlflowClient

from pipeline.tracking import track
from stages import track as track_stage
from tests.tracked import fill_workspace


@pytest.fixture
def workspace(tmp_path, migrated):
    return fill_workspace(tmp_path, migrated)


def test_the_stage_finds_nothing_before_the_first_run(tmp_path, migrated, monkeypatch):
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["track"])
    assert track_stage.main() == 0
    assert json.loads((tmp_path / "reports" / "tracked.json").read_text()) == {"pending": [], "sent": {}}


def test_a_server_that_does_not_answer_leaves_everything_pending(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracked = track(workspace, tmp_path / "work", uri=f"http://127.0.0.1:{free_port()}")
    assert tracked.pending == ("7eac4e5", "c0dec")
    assert tracked.sent == ()
    assert "refused" in tracked.reason


@contextlib.contextmanager
def broken_server():
    """The address of a server that answers every request with an error."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.send_error(500)

        def log_message(self, format, *args):
            pass

        do_GET = do_POST = do_PUT = answer  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_answers_with_an_error_leaves_everything_pending(workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("FORCING_GRID_WORK", str(workspace / "work"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sys, "argv", ["track"])
    with broken_server() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert track_stage.main() == 0
    said = capsys.readouterr().err
    assert f"{uri} has 0 runs, 2 are not yet sent:\n" in said
    assert "500" in said
    tracked = json.loads((workspace / "reports" / "tracked.json").read_text())
    assert tracked == {"pending": ["7eac4e5", "c0dec"], "sent": {}}


@pytest.mark.slow
def test_the_stage_writes_stable_fingerprints_and_passes_without_a_server(workspace):
    env = {**os.environ, "FORCING_GRID_WORK": str(workspace / "work"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "stages.track"]
    closed = {**env, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    away = subprocess.run(command, cwd=workspace, env=closed, capture_output=True, text=True)
    assert away.returncode == 0
    assert "2 are not yet sent" in away.stderr
    tracked = workspace / "reports" / "tracked.json"
    assert json.loads(tracked.read_text()) == {"pending": ["7eac4e5", "c0dec"], "sent": {}}
    here = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True)
    assert here.returncode == 0
    assert json.loads(tracked.read_text()) == {
        "pending": [],
        "sent": {"codec": "c0dec", "teacher@causal": "7eac4e5"},
    }
    assert here.stdout.startswith("dashboard: /#/experiments/")
    assert "The run of each DVC stage: mlartifacts/runs.json" in here.stderr
    runs = json.loads((workspace / "mlartifacts" / "runs.json").read_text())
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    stages = {stage: client.get_run(run_id).data.tags["dvc.stage"] for stage, run_id in runs.items()}
    assert stages == {"codec": "codec", "teacher@causal": "teacher@causal"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
