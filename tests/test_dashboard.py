"""The dashboard answers on this machine only, and ends with all that it started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import dashboard


def test_a_port_in_use_is_said_and_nothing_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dashboard.signal, "signal", lambda *_: None)
    with socket.create_server((dashboard.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert dashboard.serve(tmp_path, {}, port) == 1
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


def test_a_group_ends_even_if_it_ignores_the_request(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "GRACE_S", 0.2)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", stubborn]
    with dashboard.in_background(command, tmp_path, dict(os.environ), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
    assert child.returncode == -9


@pytest.mark.slow
def test_the_dashboard_answers_on_this_machine_only(tmp_path):
    with socket.socket() as probe:
        probe.bind((dashboard.HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *dashboard.server_command(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", port)]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    assert dashboard.is_free(port)
    with dashboard.in_background(command, tmp_path, env) as server:
        assert dashboard.wait_until_healthy(port, server)
        assert listening_addresses(port) == {"0100007F"}
    assert server.poll() is not None
    assert dashboard.is_free(port)


def listening_addresses(port: int) -> set[str]:
    """Local addresses, as the kernel writes them, on which someone listens at this port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and local.endswith(f":{port:04X}"):
                found.add(local.split(":")[0])
    return found
