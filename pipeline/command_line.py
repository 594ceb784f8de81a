"""What the commands below `python -m` take, and their --help: answered before their modules import torch."""

import argparse
import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

USAGE_ERROR = 2


class Parser(argparse.ArgumentParser):
    """One line says what is wrong; the usage is for --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{message}\n")


@dataclass(frozen=True)
class Command:
    """example: arguments that work; arguments: by name, what argparse is told of each."""

    example: str = ""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


COMMANDS: dict[str, Command] = {
    "pipeline.bench": Command(),
    "pipeline.config": Command(
        "check params.yaml",
        {"check": {"choices": ["check"]}, "FILE": {"nargs": "?", "help": "params.yaml if absent"}},
    ),
    "pipeline.grid": Command(),
    "pipeline.reporting.tables": Command(
        ".", {"WORKSPACE": {"nargs": "?", "help": "the directory with reports/; this one if absent"}}
    ),
    "pipeline.workspace": Command(
        "smoke", {"PROFILE": {"nargs": "?", "help": "a file of profiles/; the default if absent"}}
    ),
    "stages.prepare": Command(),
    "stages.features": Command(),
    "stages.codec": Command(),
    "stages.teacher": Command("causal", {"ATTENTION": {"choices": ["causal", "bidirectional"]}}),
    "stages.init": Command(),
    "stages.student": Command(
        "rollout gan",
        {"STAGE": {"choices": ["distill", "rollout"]}, "LOSS": {"help": "one of its `losses` in params.yaml"}},
    ),
    "stages.evaluate": Command("rollout-gan", {"CHECKPOINT": {"help": "one of `checkpoints` in params.yaml"}}),
    "stages.report": Command(),
    "stages.track": Command(
        "--every 5",
        {"--every": {"type": float, "metavar": "SECONDS", "help": "go on, and follow running units"}},
    ),
    "sweeps.ablate_diffusion": Command(),
    "sweeps.bench": Command(),
    "sweeps.causal_forcing": Command(),
    "sweeps.every_cell": Command(),
    "sweeps.laboratory": Command(),
    "sweeps.run": Command(),
}


def parser_of(name: str) -> Parser:
    """Of the command `python -m name`; its docstring says what it does."""
    command = COMMANDS[name]
    source = Path(__file__).resolve().parents[1].joinpath(*name.split(".")).with_suffix(".py").read_text()
    parser = Parser(
        f"python -m {name}",
        description=ast.get_docstring(ast.parse(source)),
        epilog=f"example: python -m {name} {command.example}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument, told in command.arguments.items():
        parser.add_argument(argument, **told)
    return parser


def answer_before_imports() -> None:
    """Answer --help of the command that Python was told to run, or refuse what it does not take: exit code 2.

    Called by `__init__` of the package, while Python still looks for the module: its name stands before the
    arguments, which are all that it knows. Modules without an entry in COMMANDS read their arguments themselves.
    """
    name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    if name in COMMANDS:
        parser_of(name).parse_args(sys.argv[1:])
