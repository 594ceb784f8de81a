"""Where a sweep's tasks are run: a Ray cluster that is there from the first task on, and a line for people."""

import contextlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from pipeline.sweep.plan import SweepRun
from stages.progress import Line
from sweeps.cluster import Resources, cluster
from sweeps.on_ray import Event, on_ray
from sweeps.parallel import Run
from sweeps.runner import SideBySide


class Executor:
    """To be used as a context, whose end ends the cluster. What needs no task needs no Ray either."""

    def __init__(self, run: SweepRun) -> None:
        self.max_failures = run.max_failures
        self.each = Resources(run.resources.num_cpus, run.resources.num_gpus)  # of a process that works
        self.num_workers = run.resources.num_workers
        self.stack = contextlib.ExitStack()
        self.num_slots: int | None = None  # such processes that the cluster holds at once; None: it is not up

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def run(
        self, run: Run, tasks: Mapping[str, Any], weights: Mapping[str, int], *, name: str, noun: str
    ) -> Iterator[Event]:
        """The last event of every task, whatever becomes of the others; the line counts the weights."""
        if not tasks:
            return
        with Line(name) as line:
            told = SideBySide(line, weights, noun)
            for event in on_ray(run, tasks, **self._start(), max_failures=self.max_failures):
                if event.failure is not None:
                    again = "" if event.is_last else "; it is tried again"
                    line.write(f"{event.name}: {event.failure}{again}")
                told.hear(event.name, event)
                if event.is_last:
                    yield event

    def _start(self) -> dict[str, Any]:
        """What a task has of the cluster, which is started for the first of them.

        Raises:
            ValueError: no cluster, or one that cannot hold a task.
        """
        if self.num_slots is None:
            self.num_slots = self.stack.enter_context(cluster(self.each))
        if self.num_workers == 1:
            return {"resources": self.each}
        if self.num_slots < self.num_workers:
            asked = f"{self.num_workers} with {self.each.num_cpus} CPUs and {self.each.num_gpus:g} GPUs each"
            raise ValueError(f"the cluster must hold the workers of a trial, {asked}: it holds {self.num_slots}")
        return {"resources": None, "num_at_once": self.num_slots // self.num_workers}
