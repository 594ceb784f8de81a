"""What every sweep does: its tasks side by side under one line, and in each task one unit after another."""

import json
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Generic, TypeVar

from pipeline.interfaces import Progress
from pipeline.machine import machine
from pipeline.unit import Work, digest_of, run_unit
from stages.entry import FAILED, GOES_ON, INTERRUPTED
from stages.progress import Line, losses
from sweeps.parallel import OnShare, Run, in_parallel

PARTS = ("unit", "metrics", "timing")  # files of a unit
NEEDED = ("prepare", "features", "codec")
FIRST = "run python3 -m pipeline repro first"
WIDTH = 120  # columns of the terminal that tables are made for
Key = TypeVar("Key", bound=Hashable)
Made = dict[str, dict[str, Any]]  # by unit: what its files say


@dataclass(frozen=True)
class Outcome(Generic[Key]):
    """What became of the tasks, each in its order: the results of some, the reasons of the others."""

    made: dict[Key, Any]
    failed: dict[Key, str]


def run_all(
    run: Run,
    tasks: Mapping[Key, Any],
    num_updates: Mapping[Key, int],
    *,
    name: str,
    noun: str,
    name_of: Callable[[Key], str] = str,
) -> Outcome[Key]:
    """Every task, as many at once as there are cores, whatever becomes of the others.

    The line counts `num_updates` of every task, and says how many of the `noun` are done, and which are at work.
    Ctrl-C ends the program with one line.
    """
    keys, made, failed = list(tasks), {}, {}
    try:
        with Line(name) as line:
            told = SideBySide(line, {name_of(key): num_updates[key] for key in keys}, noun)
            for event in in_parallel(run, list(tasks.values()), num_processes=os.cpu_count() or 1):
                key = keys[event.index]
                if event.failure is not None:
                    failed[key] = event.failure
                    line.write(f"{name_of(key)}: {event.failure}")
                elif event.is_last:
                    made[key] = event.result
                told.hear(name_of(key), event)
    except KeyboardInterrupt:
        sys.stderr.write(f"{GOES_ON}\n")
        sys.exit(INTERRUPTED)
    return Outcome(*({key: part[key] for key in keys if key in part} for part in (made, failed)))


class SideBySide:
    """Tasks in one line: steps of all, how many are made, how many failed, and what those at work say.

    num_steps: of every task, by its name; noun: what they are called.
    """

    def __init__(self, line: Line, num_steps: Mapping[str, int], noun: str) -> None:
        self.line, self.num_steps, self.noun = line, num_steps, noun
        self.shares, self.words = dict.fromkeys(num_steps, 0.0), dict.fromkeys(num_steps, "")
        self.ended: set[str] = set()
        self.num_failed = 0
        self._tell()

    def hear(self, name: str, event: Any) -> None:
        """event: of `sweeps.parallel` or `sweeps.on_ray`, of the task of this name."""
        self.shares[name] = 1.0 if event.is_last else event.share
        self.words[name] = event.words
        self.ended |= {name} if event.is_last else set()
        self.num_failed += event.is_last and event.failure is not None
        self._tell()

    def _tell(self) -> None:
        shares = self.shares
        at_work = [name for name in shares if shares[name] > 0 and name not in self.ended]
        begun = [f"{name} ({self.words[name]})" if self.words[name] else name for name in at_work]
        words = [f"{len(self.ended) - self.num_failed} of {len(shares)} {self.noun}"]
        words += [f"{self.num_failed} failed"] if self.num_failed else []
        words += [f"at {', '.join(begun)}"] if begun else []
        done = sum(share * self.num_steps[name] for name, share in shares.items())
        self.line.show(int(done), sum(self.num_steps.values()), ", ".join(words))


def show(text: str) -> None:
    """Print the table of a sweep, what follows it in lines of 120 columns, and what the table's mark means."""
    from pipeline.reporting.tables import BEST

    table, gap, said = text.partition("\n\n")
    lines = [fill(line, WIDTH) for line in said.splitlines()]
    meaning = [f"{BEST} best of its column"] if BEST in text else []
    print(table + gap + "\n".join([*lines, *meaning]), flush=True)


def end_if_failed(outcome: Outcome[Any], *, noun: str) -> None:
    """Say what failed, and end with exit code 1; nothing where all was made."""
    failed = outcome.failed
    if failed:
        of = f"{len(failed)} of {len(failed) + len(outcome.made)} {noun}"
        sys.stderr.write(f"{of} failed: {'; '.join(map(str, failed))}\n")
        sys.exit(FAILED)


class InTurn:
    """The units of one task, one after another. shares: of the task's time, by the name of the unit.

    run: what runs a unit, with the contract of `run_unit`.
    """

    def __init__(self, shares: Mapping[str, float], on_share: OnShare, run: Callable[..., Path] = run_unit) -> None:
        self.shares, self.on_share, self.run = shares, on_share, run
        self.done, self.total = 0.0, sum(shares.values())
        self.made: Made = {}
        self.losses = ""  # of the last report

    def make(self, name: str, kind: str, work: Work, inputs: Mapping[str, Path]) -> Path:
        """The directory of the finished unit of this kind; what its files say is kept in `made`."""

        def tell(progress: Progress) -> None:
            self.losses = losses(progress.metrics) or self.losses
            share = self.done + self.shares[name] * progress.step / progress.num_steps
            self.on_share(share / self.total, self.losses)

        directory = self.run(kind, work, inputs, on_progress=tell)
        self.made[name] = {part: json.loads((directory / f"{part}.json").read_text()) for part in PARTS}
        self.done += self.shares[name]
        return directory


def check_inputs(artifacts: Path, *, teachers: tuple[str, ...] = ()) -> None:
    """Whether the run has made what students are trained on and measured by, and these teachers.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one is of older code, or a teacher speaks other latents.
    """
    from pipeline.models.clip_encoder import load_clip_encoder
    from pipeline.models.codec import load_codec
    from pipeline.models.denoiser import load_denoiser
    from pipeline.models.digit_reader import load_digit_reader

    paths = [artifacts / "teacher" / name for name in teachers]
    for path in (*(artifacts / name for name in NEEDED), *paths):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} must be there: {FIRST}")
    for load, name in ((load_codec, "codec"), (load_clip_encoder, "features"), (load_digit_reader, "features")):
        try:
            load(artifacts / name)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{artifacts / name} must be made by the code of today: {FIRST}") from error
    for path in paths:
        load_denoiser(path, latents=digest_of(artifacts / "codec" / "codec.json"))


def about(made: Mapping[Any, Made], failed: Mapping[Any, str]) -> dict[str, Any]:
    """What the units of a sweep were made from: versions and revisions, the machine, and why some were not."""
    units = [unit["unit"] for parts in made.values() for unit in parts.values()]
    revisions = {json.dumps(unit["revision"], sort_keys=True) for unit in units}
    return {
        "versions": units[0]["versions"],
        "revisions": [json.loads(revision) for revision in sorted(revisions)],
        "machine": machine(),
        "failed": {str(key): reason for key, reason in failed.items()},
    }
