"""Which cluster is used, and which is refused; two nodes, of which one goes."""

import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from pipeline.unit import PROJECT
from sweeps import cluster as module
from sweeps.cluster import Resources, cluster, refusal
from tests.sweeps.ray_tasks import NUM_STEPS

PATIENCE_S = 240  # on a busy machine
MISMATCH = """RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.49.1
    Python: 3.12.4
This process on 10.0.0.7:6379 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
ASK = """
from sweeps.cluster import Resources, cluster
try:
    with cluster(Resources({num_cpus}, {num_gpus})) as num_at_once:
        print("runs", num_at_once)
except ValueError as error:
    print(error)
"""
DRIVER = """
import json, sys
from pathlib import Path
from sweeps.cluster import Resources, cluster
from sweeps.on_ray import on_ray
from tests.sweeps.ray_tasks import Task, Walk, walk
tasks = {str(k): Task(Walk(k, step_s=0.5), Path(sys.argv[1])) for k in range(4)}
with cluster(Resources()):
    for event in on_ray(walk, tasks, resources=Resources(), max_failures=2):
        print(json.dumps([event.name, event.failure, event.result and event.result["steps"]]), flush=True)
"""


@pytest.mark.parametrize(
    ("num_cpus", "num_gpus", "rule"),
    [
        (0, 0, "num_cpus must be at least 1"),
        (1, -0.5, "num_gpus must be a share from 0 to 1, or a whole number, got -0.5"),
        (1, 1.5, "num_gpus must be a share from 0 to 1, or a whole number, got 1.5"),
    ],
)
def test_resources_that_ray_cannot_give_are_refused(num_cpus, num_gpus, rule):
    with pytest.raises(ValueError, match=rule):
        Resources(num_cpus, num_gpus)


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:10001", "127.0.0.1", ":6379"])
def test_an_address_is_a_host_and_a_port(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    rule = f"^RAY_ADDRESS must be HOST:PORT of the head of a running Ray cluster, got {address}$"
    with pytest.raises(ValueError, match=rule), cluster(Resources()):
        pass


def test_an_address_where_nobody_listens_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with (
        pytest.raises(ValueError, match=r"^a Ray cluster must answer at RAY_ADDRESS, got .*refused$"),
        cluster(Resources()),
    ):
        pass


def test_who_listens_and_says_nothing_is_no_cluster(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(ValueError, match=r"none has within 3 s$"), cluster(Resources()):
            pass


def test_a_cluster_of_another_version_is_refused_in_one_line():
    ours = f"Ray {version('ray')} and Python {platform.python_version()}"
    assert refusal("10.0.0.7:6379", MISMATCH) == (
        f"the cluster at 10.0.0.7:6379 must run {ours}, as here: it runs Ray 2.49.1 and Python 3.12.4"
    )


def test_ray_still_says_a_mismatch_in_these_words():
    from ray._private.utils import check_version_info

    theirs = {"ray_version": "2.49.1", "python_version": "3.12.4"}
    with pytest.raises(RuntimeError) as mismatch:
        check_version_info(theirs, "10.0.0.7:6379")
    assert "it runs Ray 2.49.1 and Python 3.12.4" in refusal("10.0.0.7:6379", f"RuntimeError: {mismatch.value}")


def test_a_trial_fits_on_one_node():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    asked = {(1, 0.0): 7, (2, 0.0): 3, (1, 0.5): 2, (1, 1.0): 1, (4, 0.25): 1}
    assert {key: module._num_at_once(nodes, Resources(*key)) for key in asked} == asked
    with pytest.raises(ValueError, match="asked 5 and 0, the most on a node is 4 and 1"):
        module._num_at_once(nodes, Resources(5))
    with pytest.raises(ValueError, match="asked 1 and 2, the most on a node is 4 and 1"):
        module._num_at_once(nodes, Resources(1, 2))


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """The address, the second node's process, and the variables of those that may attach."""
    root = tmp_path_factory.mktemp("cluster")
    token = root / "token"
    token.write_text(secrets.token_hex(32))
    removed = ("RAY_ADDRESS", "OMP_NUM_THREADS", "FORCING_GRID_WORK")
    env = {name: value for name, value in os.environ.items() if name not in removed}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    port = free_port()
    address = f"127.0.0.1:{port}"
    start = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    start += ["--object-store-memory=100000000"]
    with contextlib.ExitStack() as stack:
        scratch = f"/tmp/ray-{secrets.token_hex(4)}"
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        head = [f"--port={port}", "--head", f"--temp-dir={scratch}", "--include-dashboard=false"]
        nodes = []
        for name, options in (("head", head), ("second", [f"--address={address}"])):
            log = root / name
            with log.open("w") as said:
                nodes.append(subprocess.Popen([*start, *options], env=env, stdout=said, stderr=said))
            stack.callback(end, nodes[-1])
            until(lambda log=log: "Ray runtime started" in log.read_text())
        yield address, nodes[1], {**env, "PYTHONPATH": str(PROJECT), "RAY_ADDRESS": address}


def ask(env, num_cpus=1, num_gpus=0.0):
    command = [sys.executable, "-c", ASK.format(num_cpus=num_cpus, num_gpus=num_gpus)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


@pytest.mark.slow
def test_a_cluster_is_attached_to_with_its_token_alone(two_nodes, tmp_path):
    address, _, env = two_nodes
    assert ask(env) == "runs 2\n"
    rule = "a node of the cluster must have num_cpus and num_gpus of a trial"
    assert ask(env, num_gpus=0.5) == f"{rule}: asked 1 and 0.5, the most on a node is 1 and 0\n"
    other = tmp_path / "token"
    other.write_text(secrets.token_hex(32))
    for token in (other, tmp_path / "none"):
        said = ask({**env, "RAY_AUTH_TOKEN_PATH": str(token)})
        assert said == f"RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token must hold the token of the cluster at {address}\n"


@pytest.mark.slow
def test_all_tasks_finish_where_a_node_goes(two_nodes, tmp_path):
    _, second, env = two_nodes
    diary = tmp_path / "diary"
    env = {**env, "FORCING_GRID_WORK": str(tmp_path / "work")}
    command = [sys.executable, "-c", DRIVER, str(diary)]
    driver = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        below = None
        until(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 2)
        below = psutil.Process(second.pid).children(recursive=True)
        lost = {json.loads(line)["process"] for line in diary.read_text().splitlines()} & {one.pid for one in below}
        assert lost, "a task must run on the node that goes"
        for process in (psutil.Process(second.pid), *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        out, err = driver.communicate(timeout=PATIENCE_S)
    finally:
        driver.kill()
    assert (driver.returncode, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert {name: steps for name, _, steps in events if steps} == {
        str(k): list(range(1, NUM_STEPS + 1)) for k in range(4)
    }
    assert {failure for _, failure, _ in events} == {None, "its process ended"}


def end(node):
    """The node's processes, and no others."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        node.terminate()
        _, left = psutil.wait_procs(processes, timeout=20)
        for process in left:
            process.kill()
    node.wait()


def until(happens):
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port():
    """Below those that Ray's workers take."""
    for port in range(6400, 9999):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError
