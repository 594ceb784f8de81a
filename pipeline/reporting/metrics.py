"""The few numbers by which DVC compares revisions: reports/metrics/, of which `dvc metrics show` makes a table."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.grid import Cell
from pipeline.reporting.laboratory.results import DIRECTORY, read_laboratory
from pipeline.reporting.read import Study, read_study
from pipeline.reporting.sweep_csv import MeanRow
from pipeline.reporting.sweep_read import COMPARED, EXCESS, bounds
from pipeline.reporting.sweep_tables import read_rows
from pipeline.reporting.tables import checkpoint_rows
from pipeline.sweep.plan import name_of
from pipeline.unit import write_json

MEASURED = ("excess", "excess_low", "excess_high", "recall", "agreement_last", "bits")
Numbers = dict[str, float | int]


def write_metrics(reports: Path) -> Path:
    """Write reports/metrics/ anew, the same names everywhere: a file is a row of DVC's table, a name its column.

    checkpoint/NAME.json: what every checkpoint reached. cell/NAME.json: the mean over seeds of every cell of the
    sweep, tuned where it was. laboratory/: how many claims, and how many derivations, have which verdict.

    Raises:
        DamagedRecordError: a record is missing or damaged; the message names it.
    """
    target = reports / "metrics"
    found = dict(of_checkpoints(read_study(reports)))
    if (reports / "grid").exists():
        found |= of_cells(read_rows(reports / "grid" / "cells.csv", MeanRow))
    if (reports / DIRECTORY).exists():
        found |= of_laboratory(reports)
    shutil.rmtree(target, ignore_errors=True)
    for name, numbers in found.items():
        path = target / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, numbers)
    return target


def of_checkpoints(study: Study) -> Iterator[tuple[str, Numbers]]:
    """By the name that params.yaml has for each; what was not measured is left out."""
    for checkpoint, row in zip(study.checkpoints, checkpoint_rows(study), strict=True):
        numbers = {name: row[name] for name in MEASURED if row[name] is not None}
        yield f"checkpoint/{checkpoint.measured.item}", numbers


def of_cells(rows: list[MeanRow]) -> dict[str, Numbers]:
    """Tuned where it was; `excess_untuned` is of the same seeds with the settings of params.yaml."""
    means = {(row.phase, Cell(row.method, row.loss), row.metric): row for row in rows}
    found: dict[str, Numbers] = {}
    for phase in COMPARED:  # the later, the better the setting
        for cell in dict.fromkeys(cell for of, cell, _ in means if of == phase):
            excess = means[phase, cell, EXCESS]
            before = means.get((COMPARED[0], cell, EXCESS))
            ends = bounds(excess)
            numbers = {
                "excess": excess.mean,
                "excess_low": ends and ends[0],
                "excess_high": ends and ends[1],
                "excess_untuned": before and before.mean,
                "recall": means[phase, cell, "recall"].mean,
                "agreement_last": means[phase, cell, "first_to_last"].mean,
            }
            found[f"cell/{name_of(cell)}"] = {k: value for k, value in numbers.items() if value is not None}
    return found


def of_laboratory(reports: Path) -> dict[str, Numbers]:
    """Claims as the table and as the text of the source have them, and what was derived of cells."""
    laboratory = read_laboratory(reports)
    verdicts = {f"claims_of_{reading}": Counter[str]() for reading in ("table", "text")}
    for claim in laboratory.claims:
        verdicts[f"claims_of_{claim.reading}"][claim.verdict] += 1
    verdicts["derivations"] = Counter(row.derived_verdict for row in laboratory.judged if row.derived_verdict)
    names = ("confirmed", "refuted", "undecided")
    return {
        f"laboratory/{name}": {verdict: counts[verdict] for verdict in names} for name, counts in verdicts.items()
    }
