"""The whole chain, small, through the front door's tasks and DVC: what a new user does, and does again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.environment import variables
from pipeline.unit import PROJECT, digest_of

VENV = Path(sys.prefix)


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> dict[str, str]:
    work = tmp_path_factory.mktemp("work")
    return {**variables(VENV), "FORCING_GRID_WORK": str(work), "OMP_NUM_THREADS": "1"}


def repro(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`python3 -m pipeline repro --profile smoke` in the environment that runs the tests."""
    inside = (
        "import sys; from pipeline import tasks; tasks.ensure_environment = lambda: __import__('os').environ.copy()"
    )
    command = [sys.executable, "-c", f"{inside}; sys.exit(tasks.main(sys.argv[1:]))", "repro", "--profile", "smoke"]
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)


def state_of_the_project() -> dict[str, str]:
    """Checksums of what a run of the default profile would change."""
    paths = [PROJECT / name for name in ("dvc.lock", "reports", "params.yaml")]
    return {path.name: digest_of(path) for path in paths if path.exists()}


@pytest.mark.slow
def test_the_smoke_profile_runs_to_its_end_and_touches_no_result_of_the_default(env):
    before = state_of_the_project()
    first = repro(env)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "mean nothing" in first.stdout
    assert state_of_the_project() == before

    workspace = Path(env["FORCING_GRID_WORK"]) / "profiles" / "smoke"
    assert (workspace / "reports" / "index.html").exists()
    records = [json.loads(path.read_text()) for path in (workspace / "reports").rglob("record.json")]
    assert {record["profile"] for record in records} == {"smoke"}
    tracked = json.loads((workspace / "reports" / "tracked.json").read_text())
    made = {"@".join(filter(None, (one["stage"], one["item"]))): one["fingerprint"] for one in records}
    swept = {name: digest_of(workspace / "reports" / name) for name in ("grid", "laboratory")}
    assert tracked == {"pending": [], "sent": {**made, **swept}}

    lock = (workspace / "dvc.lock").read_text()
    again = repro(env)
    assert again.returncode == 0
    assert "Running stage" not in again.stdout
    assert "mean nothing" in again.stdout
    assert (workspace / "dvc.lock").read_text() == lock
