"""Tasks as trials of Ray Tune: shares done, results, failures; the same events as of `sweeps.parallel`."""

import gc
import os
import pickle
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.environment import end_with_parent
from sweeps.cluster import Resources
from sweeps.parallel import Run, one_line

SAY_EVERY_S = 1.0  # seconds between two shares of a task
ENDED = "its process ended"  # killed, out of memory, or with its node


@dataclass(frozen=True)
class Event:
    """What is known of the task of this name."""

    name: str
    share: float = 0.0  # done so far, of 1
    result: Any = None
    failure: str | None = None  # the reason, in one line; the task is tried again unless this is its last event
    is_last: bool = False
    words: str = ""  # what it says for people


def on_ray(
    run: Run,
    tasks: Mapping[str, Any],
    *,
    resources: Resources | None,
    max_failures: int,
    num_at_once: int | None = None,
) -> Iterator[Event]:
    """Run every task, whatever becomes of the others; the last event of each has its result or its failure.

    run: a function of a module, called in a process that is used for one task after another. tasks and results
    pass through pickle. A task that fails is run again up to `max_failures` times, from what it finds on the disk.
    To be called inside `with cluster(resources)`, whose end ends what still runs. resources None: tasks begin
    workers that have all of it, `num_at_once` of them at a time.
    """
    if not tasks:
        return
    events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    closed = threading.Event()
    arguments = (run, tasks, resources, max_failures, num_at_once, events, closed)
    tune = threading.Thread(target=_tune, args=arguments, daemon=True)  # fit() returns at the end
    tune.start()
    waiting = set(tasks)
    try:
        while waiting:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if event.name in waiting:  # a process that ended after its result is not heard again
                if event.is_last:
                    waiting.remove(event.name)
                yield event
        tune.join()
    finally:
        closed.set()


def _tune(
    run: Run,
    tasks: Mapping[str, Any],
    resources: Resources | None,
    max_failures: int,
    num_at_once: int | None,
    events: "queue.SimpleQueue[Event | Exception]",
    closed: threading.Event,
) -> None:
    """One trial a task, first come first served: no schedule that ends some before others."""
    from ray import tune

    names = list(tasks)

    class Tell(tune.Callback):
        def __reduce__(self) -> Any:
            return tune.Callback, ()  # the tuner writes down what it is made of; nobody reads it

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if closed.is_set():
                raise InterruptedError

        def on_trial_result(self, *_: Any, **said: Any) -> None:
            name, result = self.name_of(said), said["result"]
            if "result" in result:
                events.put(Event(name, 1.0, pickle.loads(result["result"]), is_last=True))
            elif "share" in result:
                events.put(Event(name, result["share"], words=result["words"]))

        def on_trial_recover(self, *_: Any, **said: Any) -> None:
            events.put(Event(self.name_of(said), failure=_reason(said["trial"])))

        def on_trial_error(self, *_: Any, **said: Any) -> None:
            events.put(Event(self.name_of(said), failure=_reason(said["trial"]), is_last=True))

        def name_of(self, said: dict[str, Any]) -> str:
            return names[said["trial"].config["index"]]

    amounts: dict[str, float] = {"cpu": 0, "gpu": 0}
    if resources is not None:
        amounts = {"cpu": resources.num_cpus, "gpu": resources.num_gpus}
    try:
        trainable = tune.with_parameters(_serve, run=run, tasks=list(tasks.values()), directory=Path.cwd())
        with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as state:
            tune.Tuner(
                tune.with_resources(trainable, amounts),
                param_space={"index": tune.grid_search(list(range(len(names))))},
                tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=num_at_once),
                run_config=tune.RunConfig(
                    name="tasks",
                    storage_path=state,
                    verbose=0,
                    callbacks=[Tell()],
                    failure_config=tune.FailureConfig(max_failures=max_failures),
                ),
            ).fit()
    except Exception as error:  # of Tune itself; those of tasks are events
        events.put(error)


def _reason(trial: Any) -> str:
    """Why the last attempt failed."""
    from ray.exceptions import RayActorError, RayTaskError

    if trial.pickled_error_file is None:  # no error of a process: it could not be started
        return one_line(RuntimeError(Path(trial.error_file).read_text()))
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # that Tune has just written
    if isinstance(error, RayActorError):
        return ENDED
    return one_line(error.cause if isinstance(error, RayTaskError) else error)


def _serve(config: dict[str, Any], run: Run, tasks: list[Any], directory: Path) -> None:
    """In a worker: one task."""
    from ray import tune

    end_with_parent()
    os.chdir(directory)
    said = time.monotonic() - SAY_EVERY_S

    def on_share(share: float, words: str = "") -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY_S:
            said = time.monotonic()
            tune.report({"share": share, "words": words})

    try:
        result = run(tasks[config["index"]], on_share)
    finally:
        _free_gpu()
    tune.report({"result": pickle.dumps(result)})  # bytes, which Tune does not look into


def _free_gpu() -> None:
    """What a task has left cached on a GPU is not the next one's, nor a neighbour's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
