"""Every module that is run with -m explains itself at once, and refuses what it cannot take."""

import ast
import os
import subprocess
import sys

import pytest

from pipeline.command_line import COMMANDS
from pipeline.tasks import TASKS
from pipeline.unit import PROJECT

HEAVY = {"torch", "ray", "mlflow", "pandas", "dvc"}


def commands() -> list[str]:
    """All modules that do something when they are run, the front door aside."""
    found = []
    for package in ("pipeline", "stages", "sweeps"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
                found.append(".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__main__"))
    return [name for name in found if name != "pipeline"]


def run(*arguments: str, heavy_too: bool = True) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """How it ended, and the libraries that it imported; without them, the standard library is all it sees."""
    options = ["-X", "importtime", *([] if heavy_too else ["-S"])]
    env = {**os.environ, "COLUMNS": "120"}
    command = [sys.executable, *options, "-m", *arguments]
    answer = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
    said = answer.stderr.splitlines()
    imported = {line.rsplit("|", 1)[1].strip() for line in said if line.startswith("import time:")}
    answer.stderr = "\n".join(line for line in said if not line.startswith("import time:"))
    return answer, imported


def test_every_command_with_arguments_read_here_is_one_that_is_run():
    assert set(COMMANDS) <= set(commands())


@pytest.mark.parametrize("name", commands())
def test_every_command_explains_itself_with_an_example_and_imports_nothing_heavy(name):
    answer, imported = run(name, "--help")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"usage: python -m {name} ")
    _, _, explained = answer.stdout.partition("\n\n")
    example = COMMANDS[name].example if name in COMMANDS else ""
    assert f"python -m {name} {example}".rstrip() in explained
    assert max(map(len, answer.stdout.splitlines())) <= 120
    assert not HEAVY & imported


@pytest.mark.parametrize("name", commands())
def test_every_command_refuses_an_unknown_option_in_one_line(name):
    answer, imported = run(name, "--no-such-option")
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert not HEAVY & imported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stages.teacher", "casual"], "'casual' (choose from 'causal', 'bidirectional')"),
        (["stages.teacher"], "ATTENTION"),
        (["stages.codec", "again"], "again"),
        (["stages.student", "distill", "gna"], "loss must be one of dmd, gan, got 'gna'"),
        (["stages.evaluate", "rollout-gna"], "rollout-gan, got 'rollout-gna'"),
        (["pipeline.workspace", "smok"], "smok"),
    ],
)
def test_an_argument_that_is_no_choice_is_named(arguments, said):
    answer, _ = run(*arguments)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", TASKS)
def test_every_task_explains_itself_within_120_columns(name):
    answer, imported = run("pipeline", name, "--help", heavy_too=False)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: python3 -m pipeline {name} ")
    assert f"example: python3 -m pipeline {TASKS[name].example}" in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 120
    assert not HEAVY & imported


def test_the_list_of_tasks_fits_120_columns():
    answer, _ = run("pipeline", "--help", heavy_too=False)
    assert max(map(len, answer.stdout.splitlines())) <= 120
