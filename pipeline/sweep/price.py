"""What a step of a cell costs, measured: a unit of work, so that a sweep that goes on finds the same price."""

import statistics
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.interfaces import Progress
from pipeline.rules import at_least
from pipeline.sweep.budget import Price
from pipeline.training.cell import TrainCell
from pipeline.training.loop import train
from pipeline.unit import Metrics, digest_of


@dataclass(frozen=True)
class MeasurePrice:
    """Operations and median seconds of a step of `train`, whose inputs it has.

    The first step, which counts operations, and `num_warm` more are not timed.
    """

    train: TrainCell
    num_warm: int = 2
    num_timed: int = 5

    def __post_init__(self) -> None:
        at_least(0, num_warm=self.num_warm)
        at_least(1, num_timed=self.num_timed)

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """Metrics: flops_per_step, seconds_per_step, clips_per_step. Raises what training would."""
        num_steps = 1 + self.num_warm + self.num_timed
        cell = replace(self.train, training=replace(self.train.training, num_steps=num_steps))
        torch.set_num_threads(cell.num_threads)
        torch.manual_seed(cell.seed)
        codec = digest_of(inputs["codec"] / "codec.json")
        clips, labels = cell.clips(inputs, codec), cell.labels(inputs)
        state = cell.start(inputs, codec, clips.shape[1])
        seconds = []
        start = time.perf_counter()
        for report in train(state, clips, method=cell.method, loss=cell.loss, seed=cell.seed, labels=labels):
            end = time.perf_counter()
            seconds.append(end - start)
            yield Progress(report.step, num_steps)
            start = time.perf_counter()
        return {
            "flops_per_step": state.flops_per_step,
            "seconds_per_step": statistics.median(seconds[1 + self.num_warm :]),
            "clips_per_step": clips_per_step(cell),
        }


def clips_per_step(cell: TrainCell) -> int:
    """Clips that the updates of one step see."""
    return cell.training.batch_size * (1 + cell.loss.critic_updates)


def measured_price(metrics: Metrics) -> Price:
    """What the unit's metrics say."""
    return Price(metrics["clips_per_step"], metrics["flops_per_step"], metrics["seconds_per_step"])
