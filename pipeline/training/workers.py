"""One training by several processes: every batch shared, gradients averaged, weights and errors the same for all.

They meet in the default process group of torch.distributed, which whoever starts them sets up. What is exchanged is
a vote before each update, then its gradients: a worker that fails votes so, and all end with what it says instead
of waiting for one another.
"""

import dataclasses
import tempfile
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.interfaces import Labels, OnProgress, Progress, no_progress
from pipeline.streams import stream_seed
from pipeline.training.cell import TrainCell
from pipeline.training.loop import Clips, TrainState
from pipeline.training.optimizer import Optimizer
from pipeline.training.placed import OnDevice, Placed, exactly
from pipeline.unit import Metrics, run_unit

GOES_ON, FAILS, IS_OVER = range(3)  # votes; the highest counts


class Workers:
    """The process group, of which rank 0 alone makes the unit."""

    def __init__(self, num_workers: int, device: str) -> None:
        """Raises ValueError unless the process group is of these workers."""
        found = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if found != num_workers:
            raise ValueError(f"num_workers must be the size of the process group, got {num_workers} and {found}")
        self.size, self.rank, self.device = num_workers, dist.get_rank(), device
        self.knows = False  # that somebody failed, and so does everybody else
        self.was_left = False  # by rank 0, which takes part in nothing after it

    def vote(self, vote: int) -> int:
        """The highest of all votes."""
        votes = torch.tensor([vote], device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        outcome = int(votes)
        self.was_left = outcome == IS_OVER
        return outcome

    def agree(self) -> None:
        """Go on only together.

        Raises:
            FloatingPointError: somewhere a loss or a gradient is not finite.
            RuntimeError: a worker failed otherwise, or the first one left.
        """
        outcome = self.vote(GOES_ON)
        if outcome == IS_OVER:
            raise RuntimeError("worker 0 left before the last step")
        if outcome == FAILS:
            rank, (is_floating, message) = next((i, one) for i, one in enumerate(self._hear(None)) if one)
            raise (FloatingPointError if is_floating else RuntimeError)(f"worker {rank}: {message}")

    def tell(self, error: Exception) -> None:
        """Let the others end with this error, unless they know."""
        if self.knows or self.was_left or self.vote(FAILS) == IS_OVER:
            return
        if isinstance(error, FloatingPointError):
            # without what a cell says of the checkpoints of its own directory
            self._hear((True, str(error.__cause__ or error)))
        else:
            self._hear((False, f"{type(error).__name__}: {error}"))

    def _hear(self, own: tuple[bool, str] | None) -> list[tuple[bool, str] | None]:
        """What everyone says who fails."""
        self.knows = True
        said: list[tuple[bool, str] | None] = [None] * self.size
        dist.all_gather_object(said, own)
        return said

    def mean(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Of each tensor over the workers, in one exchange: the same bits everywhere."""
        tensors = list(tensors)
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(joined)
        parts = (joined / self.size).split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def share_state(self, state: TrainState) -> None:
        """Everything that training changes, as rank 0 has it."""
        self.agree()  # that everyone has built its own
        sent: list[Any] = [None]
        if self.rank == 0:
            tensors = {name: tensor.cpu() for name, tensor in state.tensors().items()}
            sent = [(state.step, state.flops_per_step, tensors)]
        dist.broadcast_object_list(sent, src=0)
        step, flops_per_step, tensors = sent[0]
        if self.rank > 0 and step > 0:
            state.load(step, flops_per_step, tensors)
        elif self.rank > 0:  # optimisers remember nothing yet
            for name, tensor in state.tensors().items():
                tensor.detach().copy_(tensors[name])

    def in_step(self, steps: Generator[Progress, None, Metrics]) -> Generator[Progress, None, Metrics]:
        """The same progress, its curves the means over the workers; errors are everybody's."""
        try:
            while True:
                try:
                    progress = next(steps)
                except StopIteration as end:
                    self.agree()
                    return end.value
                if progress.metrics:
                    names = list(progress.metrics)
                    self.agree()
                    means = self.mean([torch.tensor(list(progress.metrics.values()), device=self.device)])[0]
                    values = [float(f"{value:.7g}") for value in means.tolist()]
                    progress = dataclasses.replace(progress, metrics=dict(zip(names, values, strict=True)))
                yield progress
        except Exception as error:
            self.tell(error)
            raise


class AveragedOptimizer(Optimizer):
    """An optimiser that steps down the mean of the workers' gradients."""

    def __init__(self, optimizer: Optimizer, workers: Workers) -> None:
        self.__dict__.update(vars(optimizer))  # its parameters and its state, not copies of them
        self.workers = workers

    def update(self, gradients: Iterable[Tensor], *, factor: float) -> Tensor:
        """See Optimizer. Raises what another worker raised, before anything has moved."""
        self.workers.agree()
        return super().update(self.workers.mean(gradients), factor=factor)


@dataclass(frozen=True)
class Share(OnDevice):
    """What one worker does of a cell: `training` is of its part of every batch, `seed` that of all."""

    workers: Workers = field(kw_only=True)

    @classmethod
    def of(cls, placed: Placed, workers: Workers) -> "Share":
        """Of a cell that these workers train."""
        cell = placed.on_device()
        part = dataclasses.replace(cell.training, batch_size=cell.training.batch_size // workers.size)
        return cls(**{**vars(cell), "training": part}, workers=workers)

    def _follow(
        self, state: TrainState, clips: Clips, labels: Labels | None, directory: Path
    ) -> Generator[Progress, None, None]:
        """From the state of rank 0, on clips of its own."""
        workers = self.workers
        workers.share_state(state)
        state.optimizer = AveragedOptimizer(state.optimizer, workers)
        if state.critic_optimizer is not None:
            state.critic_optimizer = AveragedOptimizer(state.critic_optimizer, workers)
        seed = stream_seed(self.seed, "worker", workers.rank)
        yield from TrainCell._follow(dataclasses.replace(self, seed=seed), state, clips, labels, directory)

    def cost(self, state: TrainState) -> Metrics:
        """Of all workers."""
        cost = super().cost(state)
        return {**cost, **{name: self.workers.size * cost[name] for name in ("clips_seen", "flops")}}


def lead(placed: Placed, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
    """Rank 0: make the unit, the others in step."""
    workers = Workers(placed.num_workers, placed.device)
    assert workers.rank == 0
    workers.agree()  # the others wait for this to begin
    return (yield from exactly(placed.device, workers.in_step(Share.of(placed, workers).run(directory, inputs))))


def run_together(
    stage: str, placed: Placed, inputs: Mapping[str, Path], *, on_progress: OnProgress = no_progress
) -> Path | None:
    """Called by every worker: run_unit in the first one, which returns the unit; the others give their part.

    They write nothing, and return None when the unit is finished.

    Raises:
        FloatingPointError, RuntimeError: as run_unit, in every worker.
    """
    workers = Workers(placed.num_workers, placed.device)
    if workers.rank > 0:
        _help(placed, inputs, workers)
        return None
    try:
        return run_unit(stage, placed, inputs, on_progress=on_progress)
    finally:
        workers.vote(IS_OVER)  # the unit is finished, or this process stops: nobody waits for it


def _help(placed: Placed, inputs: Mapping[str, Path], workers: Workers) -> None:
    if workers.vote(GOES_ON) == IS_OVER:  # the unit was finished already, or refused
        return
    share, training = Share.of(placed, workers), placed.work.training
    never = training.report_every * (training.num_steps // training.report_every + 1)
    share = dataclasses.replace(share, training=dataclasses.replace(share.training, checkpoint_every=never))
    try:
        with tempfile.TemporaryDirectory() as nothing:  # without a checkpoint; the state comes from rank 0
            steps = _until(training.num_steps, share.run(Path(nothing), inputs))
            for _ in exactly(placed.device, workers.in_step(steps)):
                pass
    finally:
        if not workers.was_left:
            workers.vote(GOES_ON)  # until rank 0 says that it is over


def _until(last_step: int, steps: Generator[Progress, None, Metrics]) -> Generator[Progress, None, Metrics]:
    """Without what a cell does after its last step, which is to save the student."""
    for progress in steps:
        yield progress
        if progress.step == last_step:
            break
    return {}
