"""What the front door can do: one entry of TASKS each, as commands that run inside the environment."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline import dashboard
from pipeline.command_line import USAGE_ERROR, Parser
from pipeline.environment import PROJECT, SetupError, end_with_parent, ensure_environment, say

INTERRUPTED = 130
MAX_TEST_WORKERS = 4


@dataclass(frozen=True)
class Call:
    """One call of a task: its options, what it passes on to the tool below, and the environment's variables."""

    env: dict[str, str]
    extra: list[str]
    profile: str
    port: int

    def run(self, *command: str, cwd: Path = PROJECT) -> int:
        """Exit code of the command. Ctrl-C reaches it too: it decides how to end, and is waited for."""
        with subprocess.Popen(command, cwd=cwd, env=self.env, preexec_fn=end_with_parent) as child:
            while True:
                with contextlib.suppress(KeyboardInterrupt):
                    code = child.wait()
                    return code if code >= 0 else 128 - code

    def all_of(self, *commands: list[str]) -> int:
        """Run every command, whatever the others say; the first exit code that is not 0."""
        codes = []
        for command in commands:
            say(f"> {' '.join(command)}")
            codes.append(self.run(*command))
        return next((code for code in codes if code), 0)


@dataclass(frozen=True)
class Task:
    """What `--help` says about a task, and the function that runs it."""

    run: Callable[[Call], int]
    summary: str
    example: str
    passes_on: str = ""  # the tool that gets further arguments
    options_after_dashes: bool = False  # its options stand after --, so that a misspelt one of ours is refused
    has_profile: bool = False
    has_port: bool = False


class TaskError(Exception):
    """A command before the task itself failed, and has said why; ends with its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def workspace_of(call: Call) -> Path:
    """Where the profile lives: the project itself, or a workspace of its own, brought up to date."""
    if call.profile == "default":
        return PROJECT
    made = subprocess.run(
        ["python", "-m", "pipeline.workspace", call.profile],
        cwd=PROJECT,
        env=call.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    if made.returncode:
        raise TaskError(made.returncode)
    return Path(made.stdout.strip())


def repro(call: Call) -> int:
    """Check the parameters, run the pipeline, then show what came out."""
    workspace = workspace_of(call)
    code = call.run("python", "-m", "pipeline.config", "check", cwd=workspace)
    if code:
        return code
    code = call.run("dvc", "repro", *call.extra, cwd=workspace)
    if code or {"--dry", "-h", "--help"} & set(call.extra):
        return code
    reports = workspace / "reports"
    if (reports / "grid.csv").exists():
        print(flush=True)
        code = call.run("python", "-m", "pipeline.reporting.tables", str(workspace), cwd=workspace)
    print("\n".join(["", *seconds_of_stages(reports)]))
    if (reports / "index.html").exists():
        print(f"\nReport: {reports / 'index.html'}")
    return code


def do_without_git(call: Call) -> None:
    """Tell DVC, in a file that git never sees, where there is no git repository; `dvc` by hand needs that too."""
    local = PROJECT / ".dvc" / "config.local"
    if local.exists() and "no_scm" in local.read_text():
        return
    git = ["git", "rev-parse", "--is-inside-work-tree"]
    if not shutil.which("git") or subprocess.run(git, cwd=PROJECT, capture_output=True).returncode:
        code = call.run("dvc", "config", "--local", "core.no_scm", "true")
        if code:
            raise TaskError(code)


def seconds_of_stages(reports: Path) -> list[str]:
    """A line for every record below `reports`: the seconds that its unit took, over all its interruptions."""
    rows = []
    for path in reports.rglob("record.json"):
        record = json.loads(path.read_text())
        name = "@".join(filter(None, [record["stage"], record["item"]]))
        rows.append((path.stat().st_mtime, name, record["timing"]["seconds"]))
    lines = [f"{name:<32}{seconds:>9.1f} s" for _, name, seconds in sorted(rows)]  # in the order of their making
    return [*lines, f"{'all stages':<32}{sum(row[2] for row in rows):>9.1f} s"]


def test(call: Call) -> int:
    cores = os.cpu_count() or 1
    workers = min(cores + 1, MAX_TEST_WORKERS)  # one more: many tests wait for processes that they have started
    call.env.setdefault("OMP_NUM_THREADS", str(max(1, cores // workers)))
    return call.run("python", "-m", "pytest", "-n", str(workers), "--dist", "loadgroup", *call.extra)


def check(call: Call) -> int:
    return call.all_of(["ruff", "format", "--check", "."], ["ruff", "check", "."], ["pyright"], ["lint-imports"])


def fmt(call: Call) -> int:
    return call.all_of(["ruff", "check", "--fix", "."], ["ruff", "format", "."])


def report(call: Call) -> int:
    return call.run("python", "-m", "stages.report", cwd=workspace_of(call))


def track(call: Call) -> int:
    return call.run("python", "-m", "stages.track", cwd=workspace_of(call))


def bench(call: Call) -> int:
    if call.extra == ["sweep"]:
        return call.run("python", "-m", "sweeps.bench")
    if call.extra:
        say(f"bench takes nothing, or sweep, got {' '.join(call.extra)}")
        return USAGE_ERROR
    return call.run("python", "-m", "pipeline.bench")


def ablate_diffusion(call: Call) -> int:
    return call.run("python", "-m", "sweeps.ablate_diffusion", cwd=workspace_of(call))


def every_cell(call: Call) -> int:
    return call.run("python", "-m", "sweeps.every_cell", cwd=workspace_of(call))


def sweep(call: Call) -> int:
    workspace = workspace_of(call)
    code = call.run("python", "-m", "sweeps.run", cwd=workspace)
    if code in (0, 1) and (workspace / "reports" / "grid").exists():  # what failed is shown, too
        drawn = call.run("python", "-m", "stages.report", cwd=workspace)
        if drawn == 0:
            print(f"\nReport: {workspace / 'reports' / 'index.html'}")
        code = drawn or code
    return code


def causal_forcing(call: Call) -> int:
    return call.run("python", "-m", "sweeps.causal_forcing", cwd=workspace_of(call))


def laboratory(call: Call) -> int:
    return call.run("python", "-m", "sweeps.laboratory", cwd=workspace_of(call))


def sample(call: Call) -> int:
    run = str(workspace_of(call))
    return call.run("python", "-m", "pipeline.sample", "--run", run, *call.extra, cwd=Path.cwd())


def ui(call: Call) -> int:
    return dashboard.serve(workspace_of(call), call.env, call.port)


TASKS: dict[str, Task] = {
    "repro": Task(
        repro, "run what is out of date of the pipeline, then show the table", "repro --profile smoke",
        passes_on="dvc repro, its options after --", options_after_dashes=True, has_profile=True,
    ),
    "report": Task(report, "write tables, figures and page anew", "report", has_profile=True),
    "ui": Task(ui, "the MLflow dashboard, on this machine only", "ui --port 5001", has_profile=True, has_port=True),
    "track": Task(track, "bring MLflow up to date with the results", "track --profile smoke", has_profile=True),
    "ablate-diffusion": Task(
        ablate_diffusion, "train a teacher under every prediction, weighting and schedule, then compare them",
        "ablate-diffusion", has_profile=True,
    ),
    "sweep": Task(
        sweep, "train cells of the grid by several seeds, untuned and tuned, on Ray, then compare them",
        "sweep --profile smoke", has_profile=True,
    ),
    "every-cell": Task(
        every_cell, "train every method with every loss once from the shared teachers, then compare them",
        "every-cell", has_profile=True,
    ),
    "causal-forcing": Task(
        causal_forcing, "begin a causal student in four ways, then compare what they lead to", "causal-forcing",
        has_profile=True,
    ),
    "laboratory": Task(
        laboratory, "measure on processes of known density which divergence every cell minimises", "laboratory",
        has_profile=True,
    ),
    "sample": Task(
        sample, "frames of a checkpoint, streamed into a .gif, .png, .mp4 or .npy; all options: `sample -- --help`",
        "sample --checkpoint rollout-gan --out clip.gif", passes_on="pipeline.sample, after --",
        has_profile=True,
    ),
    "bench": Task(
        bench, "time the training step and the rollout; `bench sweep`: what trials side by side are worth",
        "bench sweep", passes_on="the benchmark",
    ),
    "test": Task(test, "all tests", "test -k rollout -x", passes_on="pytest"),
    "check": Task(check, "format, lint, types and import direction", "check"),
    "fmt": Task(fmt, "format the code and repair what can be repaired", "fmt"),
}  # fmt: skip


def overview() -> str:
    """The list of tasks, an example each."""
    lines = ["usage: python3 -m pipeline TASK [options]", ""]
    width = max(map(len, TASKS)) + 2
    for name, task in TASKS.items():
        lines += [f"  {name:<{width}}{task.summary}", f"  {'':<{width}}python3 -m pipeline {task.example}"]
    lines += [
        "",
        "python3 -m pipeline TASK --help lists the options of one task. The environment is made when needed.",
    ]
    return "\n".join(lines)


def parser_of(name: str) -> Parser:
    task = TASKS[name]
    further = f"Further arguments go to {task.passes_on}.\n" if task.passes_on else ""
    parser = Parser(
        f"python3 -m pipeline {name}",
        description=task.summary,
        epilog=f"{further}example: python3 -m pipeline {task.example}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(profile="default", port=0)
    if task.has_profile:
        parser.add_argument("--profile", metavar="NAME", help="a file of profiles/; params.yaml alone if absent")
    if task.has_port:
        parser.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (5000)")
    return parser


def main(arguments: list[str]) -> int:
    """Run the task that the arguments name, in the environment; its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else USAGE_ERROR
    name, *rest = arguments
    if name not in TASKS:
        print(f"no task is called {name!r}\n\n{overview()}", file=sys.stderr)
        return USAGE_ERROR
    options, extra = parser_of(name).parse_known_args(rest)
    place = extra.index("--") if "--" in extra else len(extra)
    ours, extra = extra[:place], [*extra[:place], *extra[place + 1 :]]
    task = TASKS[name]
    options_here = [word for word in ours if word.startswith("-")] if task.options_after_dashes else []
    if unknown := options_here if task.passes_on else extra:
        print(f"{name} takes no argument {unknown[0]!r}: see python3 -m pipeline {name} --help", file=sys.stderr)
        return USAGE_ERROR
    try:
        call = Call(ensure_environment(), extra, options.profile, options.port)
        do_without_git(call)
        return task.run(call)
    except SetupError as error:
        say(str(error))
        return 1
    except TaskError as error:
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
