"""The experiment of this project in one MLflow store: what every run of it is written with."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from pipeline.lineage import lock_digests
from pipeline.mlflow_values import allowed, in_batches
from pipeline.records import Row

EXPERIMENT = "forcing-grid"
LAYOUT = {"layout": "2"}  # of runs; those that were written by another are written anew
METRICS_A_BATCH, OTHERS_A_BATCH = 800, 100  # MLflow takes 1000 entries in one call, of which 100 of each other kind
LONGEST_VALUE = 5000  # characters of a parameter or tag
SETTINGS = {  # of MLflow: patience with a server, no line for each run and no bar for each file
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Ledger:
    """The client, and where its runs are."""

    client: MlflowClient
    experiment: str
    workspace: Path

    @staticmethod
    def open(workspace: Path, uri: str | None) -> "Ledger":
        """Find or make the experiment; one whose pictures lay where the project no longer is, is made anew."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        client = MlflowClient(uri or f"sqlite:///{workspace.absolute() / 'mlflow.db'}")
        artifacts = None if is_server(uri) else (workspace.absolute() / "mlartifacts").as_uri()
        found = client.get_experiment_by_name(EXPERIMENT)
        is_elsewhere = found and artifacts and found.artifact_location != artifacts
        if found and (found.lifecycle_stage == "deleted" or is_elsewhere):
            client.rename_experiment(found.experiment_id, f"{EXPERIMENT} until {time.time_ns()}")
            if found.lifecycle_stage != "deleted":
                client.delete_experiment(found.experiment_id)
            found = None
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts)
        return Ledger(client, experiment, workspace)

    @cached_property
    def locks(self) -> dict[str, str]:
        """See `lock_digests`: reading the file takes half a second."""
        return lock_digests(self.workspace)

    def runs(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def parent_of(self, profile: str) -> str:
        found = [run.info.run_id for run in self.runs(f"tags.kind = 'profile' and tags.profile = '{profile}'")]
        if found:
            return found[0]
        run_id = self.begin(f"profile {profile}", {"kind": "profile", "profile": profile})
        self.client.set_terminated(run_id)
        return run_id

    def begin(self, name: str, tags: Mapping[str, str], start: int | None = None) -> str:
        """A new run, and its id. start: milliseconds; now if absent."""
        own = {**LAYOUT, **{allowed(key): value[:LONGEST_VALUE] for key, value in tags.items()}}
        run = self.client.create_run(self.experiment, start_time=start, tags=own, run_name=name)
        return run.info.run_id

    def say(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set those tags of the run that it does not have yet."""
        for name, value in tags.items():
            if run.data.tags.get(name) != value:
                self.client.set_tag(run.info.run_id, name, value)

    def log_curve(self, run_id: str, curve: Iterable[Row], start: int, end: int) -> None:
        self.log(run_id, self.points_of(curve, start, end))

    def points_of(self, curve: Iterable[Row], start: int, end: int) -> list[tuple[str, float, int, int]]:
        """A curve as points (name, value, milliseconds, step), its steps spread evenly over the time."""
        rows = list(curve)
        last = max((row["step"] for row in rows), default=1.0) or 1.0
        return [
            (name, value, start + int((end - start) * row["step"] / last), int(row["step"]))
            for row in rows
            for name, value in row.items()
            if name != "step"
        ]

    def log(
        self,
        run_id: str,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Points as (name, value, milliseconds, step), parameters and tags, in as few calls as MLflow takes."""
        points = [Metric(allowed(name), value, time_ms, step) for name, value, time_ms, step in metrics]
        given = [Param(allowed(name), str(value)[:LONGEST_VALUE]) for name, value in (params or {}).items()]
        said = [RunTag(allowed(name), value[:LONGEST_VALUE]) for name, value in (tags or {}).items()]
        batches = zip_longest(
            in_batches(points, METRICS_A_BATCH),
            in_batches(given, OTHERS_A_BATCH),
            in_batches(said, OTHERS_A_BATCH),
            fillvalue=(),
        )
        for some_points, some_params, some_tags in batches:
            self.client.log_batch(run_id, metrics=some_points, params=some_params, tags=some_tags)


def is_whole(run: Run) -> bool:
    """Whether a run was written to its end, and as runs are written today."""
    return run.info.status != "RUNNING" and LAYOUT.items() <= run.data.tags.items()


def is_server(uri: str | None) -> bool:
    return uri is not None and uri.startswith(("http://", "https://"))
