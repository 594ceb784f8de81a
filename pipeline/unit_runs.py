"""Units as runs of MLflow, found by fingerprint: finished ones, written once, and running ones, followed."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.ledger import Ledger, is_whole
from pipeline.lineage import directory_digest, ended_at, revision_tags, stage_tags
from pipeline.mlflow_values import cell_tags, flatten, split_values
from pipeline.records import Record, RunningUnit
from pipeline.unit import canonical_json

if TYPE_CHECKING:
    from mlflow.entities import Run


def write_units(ledger: Ledger, records: Iterable[Record], units: Path) -> Iterator[tuple[Record, str, bool]]:
    """Every record as a finished run; with each, the id of its run and whether it had to be written."""
    by_profile: dict[str, list[Record]] = {}
    for record in records:
        by_profile.setdefault(record.profile, []).append(record)
    for profile, group in by_profile.items():
        kept: dict[tuple[str, str], str] = {}
        wanted = {(record.name, record.fingerprint) for record in group}
        for run in ledger.runs(f"tags.kind = 'unit' and tags.profile = '{profile}'"):
            key = (run.data.tags["unit"], run.data.tags["fingerprint"])
            if not is_whole(run) or key in kept:
                ledger.client.delete_run(run.info.run_id)
                continue
            kept[key] = run.info.run_id
            ledger.say(run, {"current": str(key in wanted).lower()})
        parent, updates = ledger.parent_of(profile), updates_of(group)
        for record in group:
            run_id = kept.get((record.name, record.fingerprint))
            is_new = run_id is None
            if run_id is None:
                source = {**revision_tags(record.revision), **stage_tags(record.name, ledger.locks)}
                run_id = _write(ledger, record, {**source, "mlflow.parentRunId": parent}, units, updates)
            yield record, run_id, is_new


def updates_of(records: Iterable[Record]) -> dict[str, int]:
    """The last step of every training, by the digest of what it made."""
    return {directory_digest(record.products): int(record.curve[-1]["step"]) for record in records if record.curve}


def _write(ledger: Ledger, record: Record, tags: Mapping[str, str], units: Path, updates: Mapping[str, int]) -> str:
    """One finished unit: its curve, final metrics, parameters, checksums and pictures.

    Final numbers stand at the last step of the training, or of that of the student that the unit judged.
    """
    end = int(ended_at(record, units) * 1000)
    start = end - int(record.seconds * 1000)
    own = {
        "kind": "unit",
        "unit": record.name,
        "stage": record.stage,
        "item": record.item,
        "profile": record.profile,
        "fingerprint": record.fingerprint,
        "current": "true",
        "params.sha256": hashlib.sha256(canonical_json(record.work).encode()).hexdigest(),
    }
    run_id = ledger.begin(record.name, {**tags, **own}, start)
    ledger.log_curve(run_id, record.curve, start, end)
    last = int(record.curve[-1]["step"]) if record.curve else updates.get(record.inputs.get("student", ""), 0)
    flat = flatten(record.metrics, "final")
    series, texts = split_values(flat)
    points = [
        (name, value, end, index if isinstance(flat[name], list) else last)
        for name, values in series.items()
        for index, value in values
    ]
    checksums = {f"sha256.{name}": digest for name, digest in record.products.items()}
    inputs = {f"input.{name}": digest for name, digest in record.inputs.items()}
    ledger.log(run_id, points, params=flatten(record.work), tags={**checksums, **inputs, **texts})
    ledger.client.log_artifacts(run_id, str(record.directory))
    ledger.client.set_terminated(run_id, end_time=end)
    return run_id


def follow(ledger: Ledger, running: Iterable[RunningUnit]) -> list[str]:
    """Running units as unfinished runs: new ones begun, longer curves continued, ended ones removed."""
    live = {unit.fingerprint: unit for unit in running}
    known: dict[str, Run] = {}
    for run in ledger.runs("tags.kind = 'running'"):
        fingerprint = run.data.tags["fingerprint"]
        if fingerprint in live and fingerprint not in known:
            known[fingerprint] = run
        else:
            ledger.client.delete_run(run.info.run_id)
    for fingerprint, unit in live.items():
        run, now = known.get(fingerprint), int(time.time() * 1000)
        run_id = run.info.run_id if run else _begin(ledger, unit)
        last = int(run.data.tags["last_step"]) if run else -1
        rows = [row for row in unit.curve if row["step"] > last]
        if rows:
            ledger.log_curve(run_id, rows, now, now)
            ledger.client.set_tag(run_id, "last_step", str(int(rows[-1]["step"])))
    return list(live)


def _begin(ledger: Ledger, unit: RunningUnit) -> str:
    path, about = unit.directory / "unit.json", cell_tags(unit.work)
    tags = {
        **about,
        **revision_tags(json.loads(path.read_text()).get("revision")),
        "kind": "running",
        "last_step": "-1",
        "stage": unit.stage,
        "fingerprint": unit.fingerprint,
        "current": "true",
    }
    name = f"{about['cell']} seed {about['seed']}" if about else unit.stage
    run_id = ledger.begin(f"{name}, running", tags, int(path.stat().st_mtime * 1000))
    ledger.log(run_id, params=flatten(unit.work))
    return run_id
