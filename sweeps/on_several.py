"""One unit by several workers of Ray Train, each a process of its own on any node of the cluster."""

import os
import queue
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.environment import end_with_parent
from pipeline.interfaces import OnProgress, no_progress
from pipeline.training.placed import Placed
from pipeline.unit import work_root
from sweeps.cluster import Resources

LISTEN_S = 0.5  # seconds after which to look whether the workers still run
SETTINGS = {  # of the driver and of the trials that begin workers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # Train looks that often whether its workers are done
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",  # other trials may have the processors for long
}


def run_on_several(
    stage: str,
    work: Placed,
    inputs: Mapping[str, Path],
    *,
    resources: Resources,
    on_progress: OnProgress = no_progress,
) -> Path:
    """run_unit, its work shared by work.num_workers processes with these resources each.

    To be called where Ray runs, by a driver or inside a trial of Tune. The workers' resources are beside those of
    the trial, which needs none: let no more trials begin than the cluster has room for workers of.

    Raises:
        Exception: the one of the worker that failed, of the first if it failed too.
        RuntimeError: the process of a worker ended.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Empty, Queue

    os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    root = work_root().absolute()
    root.mkdir(parents=True, exist_ok=True)
    amounts = {"CPU": resources.num_cpus, **({"GPU": resources.num_gpus} if resources.num_gpus else {})}
    scaling = ScalingConfig(
        num_workers=work.num_workers, use_gpu=resources.num_gpus > 0, resources_per_worker=amounts
    )
    said = Queue(actor_options={"num_cpus": 0})
    task = {
        "stage": stage,
        "work": work,
        "inputs": dict(inputs),
        "directory": Path.cwd(),
        "root": root,
        "said": said,
    }
    outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def fit() -> None:
        try:
            # where every node can see it, as Train asks for even if nothing is kept
            with tempfile.TemporaryDirectory(prefix=".train-", dir=root, ignore_cleanup_errors=True) as state:
                run = RunConfig(name="unit", storage_path=state)
                outcome.put(
                    TorchTrainer(_serve, train_loop_config=task, scaling_config=scaling, run_config=run).fit()
                )
        except Exception as error:
            outcome.put(error)

    training = threading.Thread(target=fit, daemon=True)
    training.start()
    try:
        while training.is_alive() or not said.empty():
            try:
                on_progress(said.get(timeout=LISTEN_S))
            except Empty:
                continue
    finally:
        said.shutdown(force=True)  # a worker that still runs fails when it speaks next
        training.join()
    result = outcome.get()
    if isinstance(result, Exception):
        raise _cause(result) from result
    return Path(result.return_value)


def _cause(error: Exception) -> Exception:
    """What the workers raised: the first one's error says where the last checkpoint is."""
    from ray.exceptions import RayActorError, RayTaskError
    from ray.train import WorkerGroupError

    if not isinstance(error, WorkerGroupError):
        return error
    failures = dict(sorted(error.worker_failures.items()))
    for rank, failure in failures.items():
        if isinstance(failure, RayActorError):
            return RuntimeError(f"worker {rank}: its process ended")
    first = next(iter(failures.values()))
    return first.cause if isinstance(first, RayTaskError) else first


def _serve(task: dict[str, Any]) -> str | None:
    """In a worker."""
    end_with_parent()
    os.chdir(task["directory"])
    os.environ["FORCING_GRID_WORK"] = str(task["root"])
    from pipeline.training.workers import run_together

    unit = run_together(task["stage"], task["work"], task["inputs"], on_progress=task["said"].put)
    return None if unit is None else str(unit)
