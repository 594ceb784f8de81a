"""The virtual environment of the project, made with nothing but the standard library.

`.venv` is made from pyproject.toml and constraints.txt. A stamp, written when everything is installed, says what
it was made from; where it is missing or differs, the environment is made anew.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
NEEDED = ("venv", "ensurepip")  # Debian and Ubuntu ship Python without the second
SAY_EVERY_S = 10.0  # seconds between two lines about a running installation
KEPT_LINES = 12  # last lines of pip's output that an error shows
PR_SET_PDEATHSIG = 1  # of prctl(2)
QUIET = {"DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# Threads that spin for long are 10x slower beside another process, threads that never spin 20 % slower alone.
UNHURRIED = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
UNREACHABLE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|name resolution|getaddrinfo|Max retries exceeded"
    r"|Network is unreachable|ConnectTimeoutError|ReadTimeoutError|ProxyError"
)


class SetupError(Exception):
    """The environment could not be made; the message says why and what to do."""


def ensure_environment(project: Path = PROJECT) -> dict[str, str]:
    """Make `.venv` where it is missing or out of date; the variables with which its programs are to be started.

    Raises:
        SetupError: Python lacks venv, or pip failed.
    """
    directory = project / ".venv"
    with _one_at_a_time(project):
        wanted = stamp_of(project)
        stamp = directory / ".stamp"
        if not stamp.exists() or stamp.read_text() != wanted:
            _make(directory, project)
            stamp.write_text(wanted)
    return variables(directory)


def stamp_of(project: Path) -> str:
    """sha256 of what decides the environment: requirements, pinned versions, the Python, the place."""
    requirements = tomllib.loads((project / "pyproject.toml").read_text())
    decisive = (
        repr(
            [requirements["build-system"], requirements["project"]]
        ),  # the settings of linters decide nothing here
        (project / "constraints.txt").read_text(),
        sys.version,
        str(project),  # an environment does not survive being moved
    )
    return hashlib.sha256("\n".join(decisive).encode()).hexdigest()


def variables(directory: Path) -> dict[str, str]:
    """This process's variables, with the environment first on PATH; no telemetry and no spinning unless asked."""
    env = {**QUIET, **UNHURRIED, "GIT_PYTHON_REFRESH": "quiet", **os.environ}
    env |= {"PATH": f"{directory / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    env |= {"VIRTUAL_ENV": str(directory), "PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONHOME", None)
    if "FORCING_GRID_WORK" in env:  # stages of a profile run in another directory
        env["FORCING_GRID_WORK"] = str(Path(env["FORCING_GRID_WORK"]).absolute())
    return env


@contextlib.contextmanager
def _one_at_a_time(project: Path) -> Iterator[None]:
    with (project / "constraints.txt").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another start that makes the environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(directory: Path, project: Path) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"this Python ({sys.executable}) lacks the module {missing[0]}, so no environment can be made.\n"
            f"On Debian or Ubuntu: sudo apt install python{version}-venv"
        )
    if directory.is_symlink():  # --clear would empty what it points to, perhaps another project's
        directory.unlink()
    say(f"Making the environment in {directory} (once; some minutes, about 2 GB)")
    run_installer([sys.executable, "-m", "venv", "--clear", str(directory)], project)
    python = str(directory / "bin" / "python")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    run_installer([*command, "-c", "constraints.txt", "-e", ".[dev]"], project)
    say("The environment is ready.")


def run_installer(command: list[str], project: Path) -> None:
    """Run one command of the installation, saying every few seconds how far it is.

    Raises:
        SetupError: with the command, its exit code and the end of its output.
    """
    start = time.monotonic()
    lines: list[str] = []
    child = subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=end_with_parent,
    )
    reader = threading.Thread(target=_keep, args=(child.stdout, lines), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(SAY_EVERY_S)
            if reader.is_alive():
                say(f"  {time.monotonic() - start:4.0f} s  {phase_of(lines)}")
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if code:
        raise SetupError(explain(command, code, "".join(lines)))


def _keep(output: Iterable[str], lines: list[str]) -> None:
    for line in output:
        lines.append(line)


def phase_of(lines: list[str]) -> str:
    """What pip is doing, read from what it has said so far."""
    collected = sum(line.startswith(("Collecting ", "Processing ")) for line in lines)
    for line in lines:
        if line.startswith("Installing collected packages: "):
            return f"installing {line.count(',') + 1} packages"
    return f"collecting packages: {collected} so far" if collected else "preparing"


def explain(command: list[str], code: int, output: str) -> str:
    """Why an installation failed, in the words of pip and in ours."""
    tail = "\n".join(f"  {line}" for line in output.splitlines()[-KEPT_LINES:])
    message = f"{tail}\nthe environment could not be made: `{' '.join(command)}` ended with exit code {code}."
    if UNREACHABLE.search(output):
        message += "\nThe package index cannot be reached: is there a network? The next start tries again."
    return message


def end_with_parent() -> None:
    """Called in a child that was just started: it gets SIGTERM when its parent is gone. Linux only."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the kernel was asked
            os.kill(os.getpid(), signal.SIGTERM)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
