"""Where trials run: a Ray cluster of this machine's own, or the running one that RAY_ADDRESS names."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.environment import QUIET, UNHURRIED
from pipeline.rules import at_least
from pipeline.unit import PROJECT
from sweeps.parallel import one_line

PATIENCE_S = 40.0  # until a cluster answers; Ray tries a wrong token for 20
OBJECT_STORE = 2**27  # bytes; it holds tasks and results, trials read their data from files
ATTEMPT = "import os, ray; ray.init(os.environ['RAY_ADDRESS'], log_to_driver=False)"
SETTINGS = {  # read when ray is imported
    "RAY_AUTH_MODE": "token",  # 2.60 does not ask for the token by itself where an address is given
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would install the environment again for every worker
    "RAY_ENABLE_AUTO_CONNECT": "0",  # what still runs after the end must not start another cluster
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what nodes say of processes that end is for their logs, not for ours
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even where it is told to be quiet
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # nothing of Tune's own state is needed again
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
os.environ |= {**QUIET, **os.environ, **SETTINGS}

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one trial has to itself on its node. num_gpus: a share of one GPU below 1, else whole ones."""

    num_cpus: int = 1
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, num_cpus=self.num_cpus)
        if self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus != int(self.num_gpus)):
            raise ValueError(f"num_gpus must be a share from 0 to 1, or a whole number, got {self.num_gpus}")


@contextlib.contextmanager
def cluster(resources: Resources) -> Iterator[int]:
    """Ray is there for trials of these resources inside the block; how many of them run side by side.

    Workers import this project from where it lies here, so every node of a cluster must reach it there. They
    have a thread a CPU. A cluster of our own ends with the block, and with this process however it ends.

    Raises:
        ValueError: nobody answers at RAY_ADDRESS, the cluster there is another Ray or Python or refuses us, or no
            node has the resources.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_address(address)
    import ray

    with contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        common: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        common["runtime_env"] = {"env_vars": _variables(resources)}
        if address:
            ray.init(address, **common)
        else:
            scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets must be short
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            stack.callback(ray.shutdown)
            own = {"num_cpus": os.cpu_count(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
            _start_own({**own, **common, "_temp_dir": scratch})
        yield _num_at_once(ray.nodes(), resources)


def _start_own(options: dict[str, Any]) -> None:
    """Twice, where a busy machine keeps Ray from starting within the half minute that it gives itself."""
    import ray

    for is_last in (False, True):
        try:
            ray.init(address="local", **options)
        except Exception as error:  # Ray raises no other kind
            ray.shutdown()
            if is_last:
                raise
            LOG.warning("Ray did not start (%s); it is tried once more", one_line(error))
        else:
            return


def _variables(resources: Resources) -> dict[str, str]:
    """Of the processes that trials run in."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    variables = {**UNHURRIED, "PYTHONPATH": path, "OMP_NUM_THREADS": str(resources.num_cpus), **SETTINGS}
    if "FORCING_GRID_WORK" in os.environ:
        variables["FORCING_GRID_WORK"] = str(Path(os.environ["FORCING_GRID_WORK"]).absolute())
    return variables


def _check_address(address: str) -> None:
    """Attach to the cluster in a process of its own first: Ray has no deadline, and says much."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise ValueError(f"RAY_ADDRESS must be HOST:PORT of the head of a running Ray cluster, got {address}")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
        attempt = subprocess.run(
            [sys.executable, "-c", ATTEMPT], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except OSError as error:
        raise ValueError(f"a Ray cluster must answer at RAY_ADDRESS, got {address}: {one_line(error)}") from error
    except subprocess.TimeoutExpired as error:
        waited = f"none has within {PATIENCE_S:g} s"
        raise ValueError(f"a Ray cluster must answer at RAY_ADDRESS, got {address}: {waited}") from error
    if attempt.returncode:
        raise ValueError(refusal(address, attempt.stderr))


def refusal(address: str, said: str) -> str:
    """Why a cluster does not take us, in one line."""
    theirs = re.search(r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)", said)
    if theirs is not None:
        ours = f"Ray {importlib.metadata.version('ray')} and Python {platform.python_version()}"
        runs = f"it runs Ray {theirs[1]} and Python {theirs[2]}"
        return f"the cluster at {address} must run {ours}, as here: {runs}"
    if "InvalidAuthToken" in said or "AuthenticationError" in said:
        return f"RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token must hold the token of the cluster at {address}"
    lines = [line for line in said.splitlines() if line.strip()]
    return f"RAY_ADDRESS must be a Ray cluster that takes us: {address}: {one_line(ValueError(lines[-1]))}"


def _num_at_once(nodes: list[dict[str, Any]], resources: Resources) -> int:
    """Trials that all nodes together can hold.

    Raises:
        ValueError: no node can hold one.
    """
    wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    have = [node["Resources"] for node in nodes if node["Alive"]]
    num = sum(int(min(node.get(name, 0) / amount for name, amount in wanted.items())) for node in have)
    if num == 0:
        most = {name: max((node.get(name, 0) for node in have), default=0) for name in ("CPU", "GPU")}
        raise ValueError(
            f"a node of the cluster must have num_cpus and num_gpus of a trial: asked {resources.num_cpus} and "
            f"{resources.num_gpus:g}, the most on a node is {most['CPU']:g} and {most['GPU']:g}"
        )
    return num
