"""The front door: its list of tasks, its environment, and what each task starts."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import tasks
from pipeline.environment import SetupError, variables
from pipeline.tasks import TASKS, Call, main

PROJECT = tasks.PROJECT
PYPROJECT = '[build-system]\nrequires = []\n[project]\nname = "p"\n[tool.ruff]\nline-length = 116\n'


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


def test_the_work_root_does_not_depend_on_where_a_stage_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCING_GRID_WORK", "elsewhere")
    assert variables(Path("/p/.venv"))["FORCING_GRID_WORK"] == str(tmp_path / "elsewhere")


def test_a_task_that_cannot_get_its_environment_ends_with_1(monkeypatch, capsys):
    def fail() -> dict[str, str]:
        raise SetupError("no pip")

    monkeypatch.setattr(tasks, "ensure_environment", fail)
    assert main(["check"]) == 1
    assert "no pip" in capsys.readouterr().err


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
