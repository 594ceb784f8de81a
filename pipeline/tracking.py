"""MLflow as a view of the results that can be rebuilt at any time: files in, runs out.

Nothing writes to MLflow while a unit trains. `track` reads the records of finished units and the curves of running
ones, and brings MLflow to the same state however often it is called: one parent run a profile, one child a unit.
Beside it only what writes for it imports mlflow: ledger, unit_runs, sweep_runs, cell_models, model_files; and
logged_model, which runs inside a model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.exceptions import MlflowException

from pipeline.ledger import EXPERIMENT, Ledger, is_server
from pipeline.mlflow_values import flatten, split_values
from pipeline.records import Record, read_records, running_units
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
from pipeline.unit import single_writer
from pipeline.unit_runs import follow, write_units

RUNS = "mlartifacts/runs.json"  # ids by DVC stage or sweep: new in every store, so not among the results

__all__ = ["EXPERIMENT", "RUNS", "Ledger", "Tracked", "is_server", "track"]


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
    fingerprints: dict[str, str] = field(default_factory=dict)  # of what was sent, by DVC stage or sweep
    runs: dict[str, str] = field(default_factory=dict)  # the id of its run, likewise


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
    sent, running, num_new, page, reason, of_name, runs = [], [], 0, "", "", {}, {}
    with single_writer(workspace / "mlartifacts"):
        try:
            ledger = Ledger.open(workspace, uri)
            cells = compared_cells(sweeps)
            key = SWEEP.format(phase=list(cells)[-1]) if cells else UNITS
            page = VIEW_PATH.format(experiment=ledger.experiment, key=key)
            for record, run_id, is_new in write_units(ledger, records, units):
                sent.append(record.fingerprint)
                of_name[record.name], runs[record.name] = record.fingerprint, run_id
                num_new += is_new
            for sweep in sweeps:
                run_id, is_new = write_sweep(ledger, sweep, units)
                sent.append(sweep.fingerprint)
                of_name[sweep.name], runs[sweep.name] = sweep.fingerprint, run_id
                num_new += is_new
            running = follow(ledger, running_units(units))
            describe(ledger, records, cells)
        except (MlflowException, OSError) as error:  # requests' errors are OSErrors
            reason = first_line(error)
    pending = sorted(set(fingerprints) - set(sent))
    lists = (tuple(sorted(found)) for found in (sent, pending, running, damaged))
    return Tracked(*lists, num_new=num_new, reason=reason, page=page, fingerprints=of_name, runs=runs)


def describe(ledger: Ledger, records: Iterable[Record], cells: Mapping[str, list[str]]) -> None:
    """The experiment's note and its saved views; cells: of the sweep, by phase."""
    tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
    measured = {name for record in records for name in split_values(flatten(record.metrics, "final"))[0]}
    measured |= {name for record in records for row in record.curve for name in row}
    tags[VIEW_NAME.format(key=UNITS)] = units_view(measured)
    tags[VIEW_NAME.format(key=RUNNING)] = running_view()
    for phase, names in cells.items():
        tags[VIEW_NAME.format(key=SWEEP.format(phase=phase))] = sweep_view(phase, names)
    present = ledger.client.get_experiment(ledger.experiment).tags
    for name, value in tags.items():
        if present.get(name) != value:
            ledger.client.set_experiment_tag(ledger.experiment, name, value)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
