"""The MLflow dashboard as processes: a tracker that follows running units, and a server for this machine only.

Standard library only: the programs themselves come from the environment.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.environment import end_with_parent, say

HOST = "127.0.0.1"
FOLLOW_EVERY_S = 15  # seconds between two looks at running units
DEADLINE_S = 120.0  # seconds a server may need until it answers
GRACE_S = 10.0  # seconds a process has to end after SIGTERM
MARK = "dashboard: "  # with this the tracker's line about the page to open begins


def serve(workspace: Path, env: Mapping[str, str], port: int) -> int:
    """Bring MLflow up to date, serve it, and follow running units until Ctrl-C; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # every way of ending it takes the same path
        signal.signal(number, signal.default_int_handler)
    tracker = ["python", "-m", "stages.track", "--every", str(FOLLOW_EVERY_S)]
    with contextlib.ExitStack() as children, contextlib.suppress(KeyboardInterrupt):
        if not is_free(port):
            say(f"port {port} of {HOST} is in use: choose another with --port")
            return 1
        follower = children.enter_context(in_background(tracker, workspace, env, stdout=subprocess.PIPE))
        assert follower.stdout is not None
        page = next((line.removeprefix(MARK).strip() for line in follower.stdout if line.startswith(MARK)), None)
        if page is None:
            return follower.wait() or 1
        if page.startswith("http"):
            say(f"The runs are kept by another server: {page}\nCtrl-C ends the following of running units.")
            return follower.wait()
        server_env = {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        store = env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace / 'mlflow.db'}"
        server = children.enter_context(
            in_background(server_command(workspace, store, port), workspace, server_env)
        )
        if not wait_until_healthy(port, server):
            say("the dashboard did not start: its messages stand above")
            return server.poll() or 1
        say(f"\nDashboard: http://{HOST}:{port}{page}\nCtrl-C ends it.")
        return server.wait()
    say("The dashboard is closed.")
    return 0


def server_command(workspace: Path, store: str, port: int) -> list[str]:
    """MLflow's server for this machine alone, with one worker."""
    artifacts = (workspace / "mlartifacts").as_uri()
    where = ["--backend-store-uri", store, "--artifacts-destination", artifacts]
    quiet = ["--uvicorn-opts", "--log-level warning"]
    return ["mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1", *quiet, *where]


@contextlib.contextmanager
def in_background(
    command: list[str], cwd: Path, env: Mapping[str, str], *, stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, which ends with the block; Ctrl-C does not reach it."""
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdout=stdout, text=True, start_new_session=True, preexec_fn=end_with_parent
    ) as child:
        try:
            yield child
        finally:
            end_group(child)


def end_group(child: subprocess.Popen[str]) -> None:
    """Ask the child and its children to end, insist when they do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
            return


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def wait_until_healthy(port: int, server: subprocess.Popen[str]) -> bool:
    """Wait for the server's answer; False if it has ended or took too long."""
    from urllib.request import urlopen  # a third of the time that --help takes

    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urlopen(f"http://{HOST}:{port}/health", timeout=5):
            return True
        time.sleep(0.5)
    return False
