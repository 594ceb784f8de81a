"""The predicted optima of a process and a student as a unit of work."""

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.processes import Process
from pipeline.interfaces import Progress
from pipeline.laboratory.optima import Laboratory, NoOptimumError, objectives_for
from pipeline.models.linear_gaussian import check_student
from pipeline.unit import Metrics


@dataclass(frozen=True)
class Predict:
    """Every objective that means something for a process: its optima, and what a student there has reached."""

    process: Process
    student: str
    num_threads: int = 1

    def __post_init__(self) -> None:
        check_student(self.student, self.process.num_frames)

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """One objective after another; those without an optimum are named, with the reason."""
        torch.set_num_threads(self.num_threads)
        law = self.process.law
        laboratory, names = Laboratory(law, self.student), list(objectives_for(law))
        optima, without = {}, {}
        yield Progress(0, len(names))
        for number, name in enumerate(names, start=1):
            try:
                optima[name] = dataclasses.asdict(laboratory.predict(name))
            except NoOptimumError as reason:
                without[name] = str(reason)
            yield Progress(number, len(names))
        return {"optima": optima, "without": without}
