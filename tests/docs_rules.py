"""How a command line of a page is run by a test: a rule for each program, none for others.

python3 -m pipeline TASK   goes through the front door's own parser to the commands that it starts, which are
                           recorded and not run: modules, stages, checkpoints and options must be there. What runs
                           these tasks for real, on small parameters, is named in RUN_BY. In the pages that add
                           something they run: see tests/test_docs_walkthroughs.py.
python -m MODULE           runs, for the modules of MODULES.
python3 -m pytest PATH     the path must be there; CI runs it.
dvc ...                    runs in a copy that is a git repository; of repro and exp run the options, stages and
                           parameters must be there (tests/test_smoke.py runs the first).
ray ...                    its options must be those of `ray ... --help`; tests/sweeps/test_cluster.py starts nodes.
export, . activate, chmod  the variable must be one that the code reads; the environment is that of the tests; the
                           home is not a test's to change.
"""

import functools
import importlib.util
import operator
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import tasks
from pipeline.config import load_params
from pipeline.environment import variables
from pipeline.tasks import Call
from pipeline.unit import PROJECT
from tests.docs_pages import Command

VENV = Path(sys.prefix)
RUN_BY = {
    "repro": "tests/test_smoke.py",
    "report": "tests/test_smoke.py",
    "track": "tests/stages/test_track.py",
    "ui": "tests/test_dashboard.py",
    "ablate-diffusion": "tests/sweeps/test_ablate_diffusion.py",
    "sweep": "tests/sweeps/test_killed_sweep.py",
    "every-cell": "tests/sweeps/test_every_cell_sweep.py",
    "causal-forcing": "tests/sweeps/test_causal_forcing.py",
    "laboratory": "tests/sweeps/test_laboratory_sweep.py",
    "sample": "tests/test_sample.py",
    "bench": "sweeps/bench.py",  # by nobody: its numbers are of a machine at rest
    "test": ".ci/run",
    "check": ".ci/run",
    "fmt": "tests/test_main.py",
}
MODULES = ("pipeline.grid", "pipeline.config", "pipeline.laboratory")  # that end in seconds
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_:]+$")  # for what a reader puts in


def run(command: Command, scratch: Path, patch: pytest.MonkeyPatch) -> None:
    """Raises AssertionError where the command would not work, or where no rule covers it."""
    match command.words:
        case ("python3", "-m", "pipeline", *rest):
            front_door(rest, scratch, patch)
        case ("python" | "python3", "-m", module, *rest) if module in MODULES:
            done(["-m", module, *rest], PROJECT)
        case ("python" | "python3", "-m", "pytest", *rest):
            assert all((PROJECT / word).exists() for word in rest if not word.startswith("-")), rest
        case ("dvc", *rest):
            dvc(rest, scratch)
        case ("ray", *rest):
            ray(rest)
        case (".", ".venv/bin/activate") | ("chmod", "600", "~/.ray/auth_token"):
            pass
        case ("export", setting):
            assert is_read(setting.partition("=")[0]), setting
        case ():
            pass
        case _:
            raise AssertionError(f"no rule says how a test runs {command}")
    assert all(is_read(name) for name, _ in command.env), command.env


def front_door(words: list[str], scratch: Path, patch: pytest.MonkeyPatch) -> None:
    """The task's parser, then what the task would start."""
    started: list[tuple[str, ...]] = []

    def record(call: Call, *parts: str, **_: Path) -> int:
        started.append(parts)
        return 0

    patch.setattr(Call, "run", record)
    patch.setenv("FORCING_GRID_WORK", str(scratch / "work"))
    patch.setattr(tasks, "ensure_environment", lambda: variables(VENV))
    patch.setattr(tasks, "do_without_git", lambda _: None)
    patch.setattr(tasks.dashboard, "serve", lambda *_: 0)
    assert tasks.main(words) == 0, words
    assert "--help" in words or (PROJECT / RUN_BY[words[0]]).exists()
    for parts in started:
        check_started(parts)


def check_started(parts: tuple[str, ...]) -> None:
    """A command that a task starts."""
    match parts:
        case ("dvc", "repro", *rest):
            names = YAML(typ="safe", pure=True).load(PROJECT / "dvc.yaml")["stages"]
            assert all(word.partition("@")[0] in names for word in rest if not word.startswith("-")), rest
        case ("python", "-m", "pipeline.sample", *rest):
            from pipeline.sample import _parser

            asked = _parser().parse_args(rest).checkpoint
            assert asked in load_params(PROJECT / "params.yaml").checkpoints, asked
        case ("python", "-m", "pytest", *rest):
            paths = [word for word in rest if word.startswith("tests/")]
            assert all((PROJECT / path.partition("::")[0]).exists() for path in paths), rest
        case ("python", "-m", module, *_):
            assert importlib.util.find_spec(module) is not None, module
        case (program, *_):
            assert shutil.which(program, path=f"{VENV / 'bin'}"), program


def dvc(words: list[str], scratch: Path) -> None:
    """What makes results is held against DVC's parser, dvc.yaml and params.yaml; the rest runs in a copy."""
    from dvc.cli import parse_args

    asked = parse_args(words)
    if words[0] == "repro" or words[:2] == ["exp", "run"]:
        stages, params = (YAML(typ="safe", pure=True).load(PROJECT / name) for name in ("dvc.yaml", "params.yaml"))
        assert all(target.partition("@")[0] in stages["stages"] for target in asked.targets), asked.targets
        for setting in asked.set_param if words[0] == "exp" else ():
            functools.reduce(operator.getitem, setting.partition("=")[0].split("."), params)
        return
    project = scratch / "project"
    if not project.exists():
        copied(project)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]
        again = ["commit", "-q", "--allow-empty", "-m", "again"]  # so that HEAD~1 is there to be compared with
        for part in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"], again):
            subprocess.run([*git, *part], cwd=project, check=True, capture_output=True)
    done(["-m", "dvc", *words], project)


def ray(words: list[str]) -> None:
    """Ray's own help knows every option."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    names = [word for word in words if not word.startswith("--") and not PLACEHOLDER.match(word)]
    told = subprocess.run([str(VENV / "bin" / "ray"), *names, "--help"], capture_output=True, text=True)
    assert all(f"{option} " in told.stdout for option in options), (options, told.stdout)


def is_read(name: str) -> bool:
    """Whether the project's code, or Ray's, reads this variable."""
    ours = (path.read_text() for part in ("pipeline", "sweeps") for path in (PROJECT / part).rglob("*.py"))
    return any(name in text for text in ours)


def done(arguments: list[str], directory: Path) -> str:
    """What a Python program that ends well has said."""
    env = {**variables(VENV), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def copied(target: Path) -> Path:
    """The project as it lies here, without what git ignores."""
    ignored = (".git", ".venv", "work", "artifacts", "*.egg-info", ".*cache*", "__pycache__", "mlflow.db")
    shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns(*ignored))
    return target


def through_the_door(words: tuple[str, ...], project: Path, work: Path) -> str:
    """`python3 -m pipeline ...` of a copy, in the environment of the tests; what it has said."""
    inside = "import os, sys; sys.path.insert(0, os.getcwd()); from pipeline import tasks; "
    inside += "tasks.ensure_environment = lambda: dict(os.environ); sys.exit(tasks.main(sys.argv[1:]))"
    env = {**variables(VENV), "FORCING_GRID_WORK": str(work), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    env.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", inside, *words]
    ended = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said[-5000:]
    return said
