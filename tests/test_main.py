"""The front door: its list of tasks, its environment, and what each task starts."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import environment, tasks
from pipeline.environment import SetupError, ensure_environment, phase_of, run_installer, stamp_of, variables
from pipeline.tasks import TASKS, Call, main

PROJECT = tasks.PROJECT
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


@pytest.fixture
def started(monkeypatch, tmp_path) -> list[tuple[str, ...]]:
    """The commands that a task starts, none of which runs; the project is an archive without git."""
    commands: list[tuple[str, ...]] = []

    def fake(call: Call, *command: str, **_: Path) -> int:
        commands.append(command)
        return int(call.env.get(command[0], 0))

    monkeypatch.setattr(Call, "run", fake)
    monkeypatch.setattr(tasks, "PROJECT", tmp_path)
    monkeypatch.setattr(tasks, "ensure_environment", dict)
    return commands


def front_door(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The front door in a Python that sees nothing but the standard library."""
    command = [sys.executable, "-S", "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def test_help_lists_every_task_with_an_example_and_needs_only_the_standard_library():
    answer = front_door("--help")
    assert answer.returncode == 0
    for name, task in TASKS.items():
        assert f"\n  {name} " in answer.stdout
        assert f"python3 -m pipeline {task.example}\n" in answer.stdout
        assert task.example.split()[0] == name


@pytest.mark.parametrize("name", TASKS)
def test_every_task_explains_itself_without_an_environment(name):
    answer = front_door(name, "--help")
    assert answer.returncode == 0
    assert TASKS[name].example in answer.stdout


def test_an_unknown_task_gets_the_list_and_exit_code_2():
    answer = front_door("trian")
    assert answer.returncode == 2
    assert "'trian'" in answer.stderr
    assert all(name in answer.stderr for name in TASKS)
    assert front_door().returncode == 2


def test_an_unknown_option_is_refused_where_nothing_is_passed_on(started, capsys):
    assert main(["check", "--fast"]) == 2
    assert "--fast" in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize("arguments", [["--forse"], ["evaluate", "--forse", "--", "--dry"]])
def test_an_option_of_dvc_stands_after_dashes_so_that_a_misspelt_one_is_refused(arguments, started, capsys):
    assert main(["repro", *arguments]) == 2
    assert capsys.readouterr().err == "repro takes no argument '--forse': see python3 -m pipeline repro --help\n"
    assert not started


def test_targets_and_options_reach_dvc(started):
    main(["repro", "evaluate@init", "--", "--dry"])
    assert started[-1] == ("dvc", "repro", "evaluate@init", "--dry")


@pytest.mark.parametrize("arguments", [["ui", "--port", "x"], ["repro", "--profile"]])
def test_an_option_without_its_value_is_one_line_and_exit_code_2(arguments, started, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert arguments[1] in said
    assert said.count("\n") == 1
    assert not started


def test_an_old_python_gets_a_sentence():
    source = (PROJECT / "pipeline" / "__main__.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    pretend = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_module('pipeline', run_name='__main__')"
    answer = subprocess.run([sys.executable, "-c", pretend], cwd=PROJECT, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr == f"forcing-grid needs Python 3.11 or newer, this is 3.9: {sys.executable}\n"


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


def test_the_work_root_does_not_depend_on_where_a_stage_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCING_GRID_WORK", "elsewhere")
    assert variables(Path("/p/.venv"))["FORCING_GRID_WORK"] == str(tmp_path / "elsewhere")


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


def test_a_task_that_cannot_get_its_environment_ends_with_1(monkeypatch, capsys):
    def fail() -> dict[str, str]:
        raise SetupError("no pip")

    monkeypatch.setattr(tasks, "ensure_environment", fail)
    assert main(["check"]) == 1
    assert "no pip" in capsys.readouterr().err


def test_phase_of_reads_what_pip_says():
    assert phase_of([]) == "preparing"
    lines = ["Collecting a\n", "  Downloading a.whl\n", "Collecting b\n"]
    assert phase_of(lines) == "collecting packages: 2 so far"
    assert phase_of([*lines, "Installing collected packages: a, b, c\n"]) == "installing 3 packages"


def test_repro_checks_the_parameters_first(started, monkeypatch):
    monkeypatch.setattr(tasks, "ensure_environment", lambda: {"python": "2"})
    assert main(["repro"]) == 2
    assert started[-1] == ("python", "-m", "pipeline.config", "check")
    assert ("dvc", "repro") not in started


def test_repro_passes_on_arguments_and_dvc_s_exit_code(started, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "ensure_environment", lambda: {"dvc": "255"})
    monkeypatch.setattr(tasks, "do_without_git", lambda _: None)
    assert main(["repro", "--", "--force", "evaluate@distill-dmd"]) == 255
    assert started[-1] == ("dvc", "repro", "--force", "evaluate@distill-dmd")
    assert "all stages" not in capsys.readouterr().out


def test_repro_ends_with_table_seconds_and_place_of_the_report(started, tmp_path, capsys):
    for name, seconds in (("codec", 61.25), ("teacher/causal", 120.0)):
        directory = tmp_path / "reports" / name
        directory.mkdir(parents=True)
        stage, _, item = name.partition("/")
        record = {"stage": stage, "item": item or None, "timing": {"seconds": seconds}}
        (directory / "record.json").write_text(json.dumps(record))
    (tmp_path / "reports" / "grid.csv").touch()
    (tmp_path / "reports" / "index.html").touch()
    assert main(["repro"]) == 0
    assert started[-1] == ("python", "-m", "pipeline.reporting.tables", str(tmp_path))
    lines = capsys.readouterr().out.split("\n")
    shown = [tuple(line.split()) for line in lines if line.endswith(" s")]
    assert shown == [("codec", "61.2", "s"), ("teacher@causal", "120.0", "s"), ("all", "stages", "181.2", "s")]
    assert f"Report: {tmp_path / 'reports' / 'index.html'}" in lines


def test_dvc_is_told_of_a_missing_git_once_and_only_then(started, tmp_path, monkeypatch):
    told = ("dvc", "config", "--local", "core.no_scm", "true")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["repro"]) == 0
    assert started.count(told) == 1
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    assert main(["repro"]) == 0
    assert started.count(told) == 1
    (tmp_path / ".dvc" / "config.local").unlink()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert main(["repro"]) == 0
    assert started.count(told) == 1


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"ui"}))
def test_every_task_tells_dvc_of_a_missing_git_before_it_starts(name, started):
    """`dvc repro` by hand then works, whichever task made the environment."""
    main([name])
    assert started[0] == ("dvc", "config", "--local", "core.no_scm", "true")


def test_dvc_is_told_where_git_is_not_installed(started, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert main(["repro"]) == 0
    assert ("dvc", "config", "--local", "core.no_scm", "true") in started


def test_check_runs_all_and_fails_if_one_fails(started, monkeypatch):
    assert main(["check"]) == 0
    assert [command[0] for command in started[1:]] == ["ruff", "ruff", "pyright", "lint-imports"]
    started.clear()
    monkeypatch.setattr(tasks, "ensure_environment", lambda: {"pyright": "1"})
    assert main(["check"]) == 1
    assert len(started) == 5


def test_test_passes_on_what_pytest_is_asked(started):
    assert main(["test", "-k", "rollout", "-x"]) == 0
    assert started[-1][:3] == ("python", "-m", "pytest")
    assert started[-1][-3:] == ("-k", "rollout", "-x")


def test_a_command_runs_in_the_environment_and_its_signal_is_an_exit_code():
    call = Call({"PATH": os.environ["PATH"], "MARK": "7"}, [], "default", 0)
    assert call.run(sys.executable, "-c", "import os, sys; sys.exit(int(os.environ['MARK']))") == 7
    assert call.run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)") == 137
