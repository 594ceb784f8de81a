"""Predicted optima of a process and a student: one by one, and all of them as a unit of work."""

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.processes import Process
from pipeline.interfaces import Progress
from pipeline.laboratory.flow_map import flow_map_optimum, flow_maps_for
from pipeline.laboratory.optima import Laboratory, NoOptimumError, Prediction, objectives_for
from pipeline.models.linear_gaussian import check_student
from pipeline.unit import Metrics


class Predictions:
    """What can be predicted of a process and a student: every objective that means something there, by its name.

    num_pixels: independent ones, with which divergences grow.
    """

    def __init__(self, process: Process, student: str, *, num_pixels: int = 1) -> None:
        self.process, self.num_pixels = process, num_pixels
        self._laboratory = Laboratory(process.law, student, num_pixels=num_pixels)
        self._flow_maps = flow_maps_for(process, student)
        self.names = (*objectives_for(process.law), *self._flow_maps)

    def of(self, name: str) -> Prediction:
        """Raises NoOptimumError, with the reason, for one that has none among these students."""
        if name in self._flow_maps:
            return flow_map_optimum(self.process, name, num_pixels=self.num_pixels)
        return self._laboratory.predict(name)


@dataclass(frozen=True)
class Predict:
    """All of them: their optima, and what a student there has reached."""

    process: Process
    student: str
    num_threads: int = 1

    def __post_init__(self) -> None:
        check_student(self.student, self.process.num_frames)

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """One objective after another; those without an optimum are named, with the reason."""
        torch.set_num_threads(self.num_threads)
        predictions = Predictions(self.process, self.student)
        optima, without = {}, {}
        yield Progress(0, len(predictions.names))
        for number, name in enumerate(predictions.names, start=1):
            try:
                optima[name] = dataclasses.asdict(predictions.of(name))
            except NoOptimumError as reason:
                without[name] = str(reason)
            yield Progress(number, len(predictions.names))
        return {"optima": optima, "without": without}
