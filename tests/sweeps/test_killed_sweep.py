"""The command itself on Ray: killed in the middle and called again, it ends with the same numbers."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML

from pipeline.unit import PROJECT
from tests.tiny_run import raw

PATIENCE = 12_000  # naps of 10 ms
MADE_ANEW = ("seconds", "evaluate_seconds", "latency_ms", "frames_per_s")  # columns that differ from run to run


@pytest.fixture
def call(tmp_path, artifacts):
    """Start `python -m sweeps.run` in a workspace of its own, with units of its own."""
    params = raw()
    params["sweep"] |= {"cells": ["bidirectional-gan", "self_forcing-gan"], "seeds": [1], "tuning": None}
    params["sweep"] |= {"budget": {"name": "updates", "num_updates": 60}, "checkpoint_every": 5}
    params["grid"]["training"] = {**params["grid"]["training"], "report_every": 1}

    def start(name):
        workspace = tmp_path / name
        workspace.mkdir(exist_ok=True)
        with (workspace / "params.yaml").open("w") as file:
            YAML(typ="safe", pure=True).dump(params, file)
        if not (workspace / "artifacts").exists():
            (workspace / "artifacts").symlink_to(artifacts)
        env = {**os.environ, "FORCING_GRID_WORK": str(workspace / "work"), "PYTHONPATH": str(PROJECT)}
        env.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "sweeps.run"]
        return subprocess.Popen(command, cwd=workspace, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def rows(workspace):
    with (workspace / "reports" / "grid" / "trials.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in MADE_ANEW} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_to_the_same_numbers(call, tmp_path):
    whole = call("whole")
    said, errors = whole.communicate()
    assert whole.returncode == 0, errors.decode()
    assert b"self forcing  gan" in said
    killed = call("killed")
    units = tmp_path / "killed" / "work" / "cell"
    for _ in range(PATIENCE):
        if list(units.glob("*/checkpoints/*/checksums.json")):
            break
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "reports").exists()
    assert len(list(units.glob("*/metrics.json"))) < 2  # it was in the middle
    again = call("killed")
    _, errors = again.communicate()
    assert again.returncode == 0, errors.decode()
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    curve = (tmp_path / "killed" / "reports" / "grid" / "curves.csv").read_bytes()
    assert curve == (tmp_path / "whole" / "reports" / "grid" / "curves.csv").read_bytes()
