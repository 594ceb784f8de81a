"""What workers run in the tests of sweeps on Ray."""

import json
import os
import signal
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.interfaces import Progress
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.unit import Metrics, run_unit
from sweeps.parallel import OnShare

NUM_STEPS, SAVE_EVERY = 8, 2


@dataclass(frozen=True)
class Walk:
    """A random walk that saves where it is; what it reaches depends on every step before."""

    seed: int
    num_steps: int = NUM_STEPS
    step_s: float = 0.1

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        rng = torch.Generator().manual_seed(self.seed)
        found = load_checkpoint(directory)
        start, place = 0, torch.zeros(3)
        if found is not None:
            start, place = found.step, found.tensors["place"]
            rng.set_state(found.tensors["rng"])
        counter = directory / "num_steps_run"
        for step in range(start + 1, self.num_steps + 1):
            time.sleep(self.step_s)
            counter.write_text(str(int(counter.read_text()) + 1 if counter.exists() else 1))
            place = 0.9 * place + torch.randn(3, generator=rng)
            if step % SAVE_EVERY == 0:
                save_checkpoint(directory, step, {"place": place, "rng": rng.get_state()}, {})
            yield Progress(step, self.num_steps, {"place": place[0].item()})
        (directory / "out").mkdir(exist_ok=True)
        (directory / "out" / "place.json").write_text(json.dumps(place.tolist()))
        return {"place": place.tolist()}


@dataclass(frozen=True)
class Task:
    """A walk, where its process writes that it began, and what goes wrong: once, or always."""

    walk: Walk
    diary: Path
    fault: str | None = None
    at_step: int = 5


def walk(task: Task, on_share: OnShare) -> dict[str, Any]:
    """What a trial of the sweep does, in small."""
    mark = task.diary.with_name(f"fault-{task.walk.seed}")
    with task.diary.open("a") as diary:
        diary.write(json.dumps({"seed": task.walk.seed, "process": os.getpid()}) + "\n")

    def tell(progress: Progress) -> None:
        on_share(progress.step / progress.num_steps)
        if progress.step != task.at_step or task.fault is None:
            return
        if task.fault == "always":
            raise FloatingPointError(f"student_loss is not finite at step {progress.step}\nand so on")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    directory = run_unit("walk", task.walk, {}, on_progress=tell)
    rows = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    return {
        "metrics": json.loads((directory / "metrics.json").read_text()),
        "steps": [row["step"] for row in rows],
        "curve": np.array([row["place"] for row in rows]),
        "variables": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
        "directory": Path.cwd(),
    }
