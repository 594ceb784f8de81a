"""MLflow as a view of the results that can be rebuilt at any time: files in, runs out.

Nothing writes to MLflow while a unit trains. `track` reads the records of finished units and the curves of running
ones, and brings MLflow to the same state however often it is called: one parent run a profile, one child a unit.
The only module that imports mlflow.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from pipeline.lineage import ended_at, lock_digests, source_tags
from pipeline.mlflow_values import allowed, cell_tags, flatten, in_batches, split_values
from pipeline.records import Record, Row, RunningUnit, read_records, running_units
from pipeline.saved_view import (
    NOTE,
    RUNNING,
    SWEEP,
    UNITS,
    VIEW_NAME,
    VIEW_PATH,
    running_view,
    sweep_view,
    units_view,
)
from pipeline.sweep_records import compared_cells, read_sweeps
from pipeline.sweep_runs import write_sweep
from pipeline.unit import canonical_json, single_writer

EXPERIMENT = "forcing-grid"
METRICS_A_BATCH, OTHERS_A_BATCH = 800, 100  # MLflow takes 1000 entries in one call, of which 100 of each other kind
LONGEST_VALUE = 5000  # characters of a parameter or tag
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # for a server


@dataclass(frozen=True)
class Tracked:
    """What MLflow holds now; fingerprints, sorted."""

    sent: tuple[str, ...]
    pending: tuple[str, ...]
    running: tuple[str, ...]
    damaged: tuple[str, ...]  # a line about each record that cannot be read
    num_new: int  # runs written by this call
    reason: str  # why something is pending
    page: str  # of the saved view, below the server's address


def track(workspace: Path, units: Path, *, uri: str | None = None) -> Tracked:
    """Bring MLflow to what `workspace/reports` and the running units below `units` say.

    A finished run is kept, found by its fingerprint; one that was left half-written, or is there twice, is deleted
    and written anew. Runs of earlier parameters stay, with the tag current=false.

    Args:
        uri: the store; `workspace/mlflow.db` if absent. A server that does not answer, or answers with an error,
            leaves what it did not take pending.
    """
    records, damaged = read_records(workspace / "reports")
    sweeps, damaged_sweeps = read_sweeps(workspace / "reports")
    damaged += damaged_sweeps
    fingerprints = sorted(one.fingerprint for one in (*records, *sweeps))
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    sent, running, num_new, page, reason = [], [], 0, "", ""
    with single_writer(workspace / "mlartifacts"):
        try:
            ledger = Ledger.open(workspace, uri)
            cells = compared_cells(sweeps)
            key = SWEEP.format(phase=list(cells)[-1]) if cells else UNITS
            page = VIEW_PATH.format(experiment=ledger.experiment, key=key)
            for record, is_new in ledger.write_all(records, units):
                sent.append(record.fingerprint)
                num_new += is_new
            for sweep in sweeps:
                num_new += write_sweep(ledger, sweep)
                sent.append(sweep.fingerprint)
            running = ledger.follow(running_units(units))
            ledger.describe(records, cells)
        except (MlflowException, OSError) as error:  # requests' errors are OSErrors
            reason = first_line(error)
    pending = sorted(set(fingerprints) - set(sent))
    lists = (tuple(sorted(found)) for found in (sent, pending, running, damaged))
    return Tracked(*lists, num_new=num_new, reason=reason, page=page)


@dataclass(frozen=True)
class Ledger:
    """The experiment of this project in one MLflow store."""

    client: MlflowClient
    experiment: str
    workspace: Path

    @staticmethod
    def open(workspace: Path, uri: str | None) -> "Ledger":
        """Find or make the experiment; one whose pictures lay where the project no longer is, is made anew."""
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

    def runs(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def write_all(self, records: Iterable[Record], units: Path) -> Iterator[tuple[Record, bool]]:
        """Every record as a finished run; with each, whether it had to be written."""
        locks = lock_digests(self.workspace)
        by_profile: dict[str, list[Record]] = {}
        for record in records:
            by_profile.setdefault(record.profile, []).append(record)
        for profile, group in by_profile.items():
            kept, wanted = {}, {(record.name, record.fingerprint) for record in group}
            for run in self.runs(f"tags.kind = 'unit' and tags.profile = '{profile}'"):
                key = (run.data.tags["unit"], run.data.tags["fingerprint"])
                if run.info.status != "FINISHED" or key in kept:
                    self.client.delete_run(run.info.run_id)
                    continue
                kept[key] = run
                current = str(key in wanted).lower()
                if run.data.tags["current"] != current:
                    self.client.set_tag(run.info.run_id, "current", current)
            parent = self.parent_of(profile)
            for record in group:
                is_new = (record.name, record.fingerprint) not in kept
                if is_new:
                    lock = {"dvc.lock": locks.get(record.name, "none")}
                    self.write(record, parent, {**source_tags(record), **lock}, units)
                yield record, is_new

    def parent_of(self, profile: str) -> str:
        found = [run.info.run_id for run in self.runs(f"tags.kind = 'profile' and tags.profile = '{profile}'")]
        if found:
            return found[0]
        tags = {"kind": "profile", "profile": profile}
        run = self.client.create_run(self.experiment, tags=tags, run_name=f"profile {profile}")
        self.client.set_terminated(run.info.run_id)
        return run.info.run_id

    def write(self, record: Record, parent: str, tags: Mapping[str, str], units: Path) -> None:
        """One finished unit: its curve, final metrics, parameters, checksums and pictures."""
        end = int(ended_at(record, units) * 1000)
        start = end - int(record.seconds * 1000)
        tags = {
            **tags,
            "mlflow.parentRunId": parent,
            "kind": "unit",
            "unit": record.name,
            "stage": record.stage,
            "item": record.item,
            "profile": record.profile,
            "fingerprint": record.fingerprint,
            "current": "true",
            "params.sha256": hashlib.sha256(canonical_json(record.work).encode()).hexdigest(),
        }
        run = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=record.name)
        run_id = run.info.run_id
        self.log_curve(run_id, record.curve, start, end)
        checksums = {f"sha256.{name}": digest for name, digest in record.products.items()}
        inputs = {f"input.{name}": digest for name, digest in record.inputs.items()}
        series, texts = split_values(flatten(record.metrics, "final"))
        self.log(run_id, [(name, value, end, step) for name, values in series.items() for step, value in values])
        self.log(run_id, params=flatten(record.work), tags={**checksums, **inputs, **texts})
        self.client.log_artifacts(run_id, str(record.directory))
        self.client.set_terminated(run_id, end_time=end)

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

    def follow(self, running: Iterable[RunningUnit]) -> list[str]:
        """Running units as unfinished runs: new ones begun, longer curves continued, ended ones removed."""
        live = {unit.fingerprint: unit for unit in running}
        known: dict[str, Run] = {}
        for run in self.runs("tags.kind = 'running'"):
            fingerprint = run.data.tags["fingerprint"]
            if fingerprint in live and fingerprint not in known:
                known[fingerprint] = run
            else:
                self.client.delete_run(run.info.run_id)
        for fingerprint, unit in live.items():
            run, now = known.get(fingerprint), int(time.time() * 1000)
            if run is None:
                start = int((unit.directory / "unit.json").stat().st_mtime * 1000)
                about = cell_tags(unit.work)
                tags = {
                    **about,
                    "kind": "running",
                    "last_step": "-1",
                    "stage": unit.stage,
                    "fingerprint": fingerprint,
                    "current": "true",
                }
                name = f"{about['cell']} seed {about['seed']}" if about else unit.stage
                run = self.client.create_run(
                    self.experiment, start_time=start, tags=tags, run_name=f"{name}, running"
                )
                self.log(run.info.run_id, params=flatten(unit.work))
            last = int(run.data.tags["last_step"])
            rows = [row for row in unit.curve if row["step"] > last]
            if rows:
                self.log_curve(run.info.run_id, rows, now, now)
                self.client.set_tag(run.info.run_id, "last_step", str(int(rows[-1]["step"])))
        return list(live)

    def describe(self, records: Iterable[Record], cells: Mapping[str, list[str]]) -> None:
        """The experiment's note and its saved views; cells: of the sweep, by phase."""
        tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
        measured = {name for record in records for name in split_values(flatten(record.metrics, "final"))[0]}
        measured |= {name for record in records for row in record.curve for name in row}
        tags[VIEW_NAME.format(key=UNITS)] = units_view(measured)
        tags[VIEW_NAME.format(key=RUNNING)] = running_view()
        for phase, names in cells.items():
            tags[VIEW_NAME.format(key=SWEEP.format(phase=phase))] = sweep_view(phase, names)
        present = self.client.get_experiment(self.experiment).tags
        for name, value in tags.items():
            if present.get(name) != value:
                self.client.set_experiment_tag(self.experiment, name, value)


def is_server(uri: str | None) -> bool:
    return uri is not None and uri.startswith(("http://", "https://"))


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
