"""Tasks as trials of Ray Tune: results, failures, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.unit import PROJECT, run_unit
from sweeps.cluster import Resources, cluster
from sweeps.on_ray import on_ray
from tests.sweeps.ray_tasks import NUM_STEPS, Task, Walk, walk

PATIENCE_S = 240  # on a busy machine
DRIVER = """
import json, sys
from pathlib import Path
from sweeps.cluster import Resources, cluster
from sweeps.on_ray import on_ray
from tests.sweeps.ray_tasks import Task, Walk, walk
tasks = {str(k): Task(Walk(k, step_s=float(sys.argv[2])), Path(sys.argv[1])) for k in range(3)}
with cluster(Resources()):
    for event in on_ray(walk, tasks, resources=Resources(), max_failures=0):
        if event.is_last:
            said = [event.name, event.failure, event.result["metrics"], event.result["steps"]]
            print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory):
    """Two trials side by side; units in a directory of this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        root = tmp_path_factory.mktemp("ray")
        patch.setenv("FORCING_GRID_WORK", str(root / "work"))
        with cluster(Resources()) as num_at_once:
            assert num_at_once == os.cpu_count()
            yield root


def alone(task, root, monkeypatch):
    """What the unit comes to without interruption, in this process."""
    monkeypatch.setenv("FORCING_GRID_WORK", str(root))
    directory = run_unit("walk", task, {})
    return json.loads((directory / "metrics.json").read_text())


def seeds_begun(diary):
    return [json.loads(line)["seed"] for line in diary.read_text().splitlines()]


def last_events(events):
    found = {}
    for event in events:
        assert event.name not in found or not found[event.name].is_last, "nothing comes after the last event"
        found[event.name] = event
    return found


@pytest.mark.slow
def test_tasks_are_run_whatever_becomes_of_the_others(ray_cluster, tmp_path, monkeypatch, capfd):
    diary = tmp_path / "diary"
    faults = {2: "always", 4: "killed"}
    tasks = {f"walk {k}": Task(Walk(k), diary, faults.get(k)) for k in range(6)}
    events = list(on_ray(walk, tasks, resources=Resources(), max_failures=1))
    last = last_events(events)
    assert set(last) == set(tasks)
    assert all(event.is_last for event in last.values())
    assert all(0 <= event.share <= 1 for event in events)

    reason = "student_loss is not finite at step 5 and so on"
    told = {name: [event.failure for event in events if event.failure and event.name == name] for name in tasks}
    assert told == {**{name: [] for name in tasks}, "walk 2": [reason] * 2, "walk 4": ["its process ended"]}
    assert last["walk 2"].result is None
    assert sorted(seeds_begun(diary)) == [0, 1, 2, 2, 3, 4, 4, 5]

    for k in {0, 1, 3, 4, 5}:
        found = last[f"walk {k}"].result
        assert found["metrics"] == alone(Walk(k), tmp_path / "alone", monkeypatch)
        assert found["steps"] == list(range(1, NUM_STEPS + 1)), "a resumed curve has every row once"
        assert found["curve"][-1] == found["metrics"]["place"][0]
        assert isinstance(found["curve"], np.ndarray)
        assert found["variables"] == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        assert found["directory"] == Path.cwd()
    assert capfd.readouterr() == ("", ""), "the terminal is the caller's"


@pytest.mark.slow
def test_one_process_serves_many_tasks_and_finished_units_are_found(ray_cluster, tmp_path):
    diary = tmp_path / "diary"
    tasks = {str(k): Task(Walk(10 + k % 2, step_s=0), diary) for k in range(6)}
    last = last_events(on_ray(walk, tasks, resources=Resources(), max_failures=0))
    processes = {json.loads(line)["process"] for line in diary.read_text().splitlines()}
    assert len(processes) <= os.cpu_count()
    for k in range(6):
        assert last[str(k)].result["metrics"] == last[str(k % 2)].result["metrics"]


@pytest.mark.slow
def test_an_error_that_no_person_caused_is_named_with_its_kind(ray_cluster, tmp_path):
    tasks = {"good": Task(Walk(20, step_s=0), tmp_path / "diary"), "bad": Task(Walk(21), tmp_path / "no" / "diary")}
    last = last_events(on_ray(walk, {**tasks, "worse": None}, resources=Resources(), max_failures=0))
    assert last["good"].failure is None
    assert last["bad"].failure.startswith("[Errno 2] No such file or directory")
    assert last["worse"].failure == "AttributeError: 'NoneType' object has no attribute 'diary'"


def test_no_task_needs_no_cluster():
    assert list(on_ray(walk, {}, resources=Resources(), max_failures=0)) == []


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_that_runs_and_the_same_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    diary = tmp_path / "diary"
    command = [sys.executable, "-c", DRIVER, str(diary), "0.4"]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        first = json.loads(driver.stdout.readline())
        until(lambda: len(seeds_begun(diary)) == 3 and steps_of(tmp_path / "work", 2) >= 3)
        workers = {json.loads(line)["process"] for line in diary.read_text().splitlines()}
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        until(lambda: not any(is_running(worker) for worker in workers))
    finally:
        driver.kill()
    finished = {path.parent.name for path in (tmp_path / "work").glob("walk/*/metrics.json")}
    assert 1 <= len(finished) < 3
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert again.stderr == ""
    found = {
        name: (failure, metrics, steps)
        for name, failure, metrics, steps in map(json.loads, again.stdout.splitlines())
    }
    for k in range(3):
        expected = alone(Walk(k, step_s=0.4), tmp_path / "alone", monkeypatch)
        assert found[str(k)] == (None, expected, list(range(1, NUM_STEPS + 1)))
    assert found[first[0]] == tuple(first[1:])
    steps_run = {
        path.parent.name: int(path.read_text()) for path in (tmp_path / "work").glob("walk/*/num_steps_run")
    }
    assert sorted(steps_run) == sorted(path.name for path in (tmp_path / "work" / "walk").iterdir())
    assert all(steps_run[name] == NUM_STEPS for name in finished), "what was finished was not run again"
    assert max(steps_run.values()) <= NUM_STEPS + 2, "what was interrupted went on from its last checkpoint"


def steps_of(root, seed):
    """Rows of the curve of the walk of this seed."""
    for path in root.glob("walk/*/unit.json"):
        if json.loads(path.read_text())["work"]["seed"] == seed and path.with_name("curve.jsonl").exists():
            return len(path.with_name("curve.jsonl").read_text().splitlines())
    return 0


def until(happens):
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
