"""The environment of the front door: made once, again when what it is made of changes, and whole or not at all."""

import sys
from pathlib import Path

import pytest

from pipeline import environment
from pipeline.environment import SetupError, ensure_environment, phase_of, run_installer, stamp_of, variables

PYPROJECT = '[build-system]\nrequires = []\n[project]\nname = "p"\n[tool.ruff]\nline-length = 116\n'


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    return tmp_path


@pytest.fixture
def installed(monkeypatch) -> list[list[str]]:
    """The commands of the installer, which only makes the directory."""
    commands: list[list[str]] = []

    def fake(command: list[str], project: Path) -> None:
        commands.append(command)
        (project / ".venv" / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environment, "run_installer", fake)
    return commands


def test_the_environment_is_made_once(project, installed):
    ensure_environment(project)
    venv, pip = installed
    assert venv[1:] == ["-m", "venv", "--clear", str(project / ".venv")]
    assert pip[0] == str(project / ".venv" / "bin" / "python")
    assert pip[-4:] == ["-c", "constraints.txt", "-e", ".[dev]"]
    ensure_environment(project)
    assert len(installed) == 2


def test_an_environment_that_is_a_link_leaves_what_it_points_to_alone(project, installed, tmp_path):
    other = tmp_path / "of another project"
    other.mkdir()
    (other / "kept").touch()
    (project / ".venv").symlink_to(other)
    ensure_environment(project)
    assert not (project / ".venv").is_symlink()
    assert (other / "kept").exists()


def test_an_interrupted_installation_is_done_anew(project, installed, monkeypatch):
    def interrupted(command: list[str], project: Path) -> None:
        (project / ".venv").mkdir(exist_ok=True)
        if "pip" in command:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "run_installer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensure_environment(project)
    ensure_environment(project)
    assert len(installed) == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("constraints.txt", "2.13.0", "2.13.1", True),
        ("pyproject.toml", '"p"', '"q"', True),
        ("pyproject.toml", "116", "100", False),
    ],
)
def test_the_stamp_follows_what_is_installed_and_no_more(project, file, old, new, is_other):
    before = stamp_of(project)
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    assert (stamp_of(project) != before) == is_other


def test_the_stamp_follows_the_python(project, monkeypatch):
    before = stamp_of(project)
    monkeypatch.setattr(sys, "version", "3.99")
    assert stamp_of(project) != before


def test_the_environment_comes_first_and_telemetry_is_off(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    env = variables(Path("/p/.venv"))
    assert env["PATH"] == "/p/.venv/bin:/usr/bin"
    assert env["DVC_NO_ANALYTICS"] == env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["DO_NOT_TRACK"] == "false"
    assert "PYTHONHOME" not in env


def test_threads_wait_without_spinning_unless_asked(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert variables(Path("/p/.venv"))["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert variables(Path("/p/.venv"))["OMP_WAIT_POLICY"] == "active"


def test_a_python_without_ensurepip_gets_the_name_of_the_package(project, installed, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", ("venv", "no_such_ensurepip"))
    with pytest.raises(SetupError, match=rf"apt install python3\.{sys.version_info.minor}-venv"):
        ensure_environment(project)
    assert not installed


@pytest.mark.parametrize(
    ("output", "is_network"),
    [
        ("Failed to establish a new connection: [Errno -2]", True),
        ("ERROR: No matching distribution for nosuch", False),
    ],
)
def test_a_failed_installation_names_command_exit_code_and_reason(project, output, is_network):
    command = [sys.executable, "-c", f"print({output!r}); raise SystemExit(3)"]
    with pytest.raises(SetupError) as caught:
        run_installer(command, project)
    message = str(caught.value)
    assert output in message
    assert f"`{' '.join(command)}` ended with exit code 3" in message
    assert ("is there a network?" in message) == is_network


def test_phase_of_reads_what_pip_says():
    assert phase_of([]) == "preparing"
    lines = ["Collecting a\n", "  Downloading a.whl\n", "Collecting b\n"]
    assert phase_of(lines) == "collecting packages: 2 so far"
    assert phase_of([*lines, "Installing collected packages: a, b, c\n"]) == "installing 3 packages"
