"""A cell has one name and one number everywhere: in the files, on the page, in the terminal, in MLflow."""

import csv
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.grid import Cell
from pipeline.reporting.page import write_report
from pipeline.reporting.sweep import as_text
from pipeline.reporting.sweep_read import COMPARED, name_of, read_sweep
from pipeline.reporting.sweep_rows import MEASURES
from pipeline.tracking import EXPERIMENT, track
from tests.reporting.sweep_files import write_sweep

IN_TERMINAL = ("excess", "first_to_last", "coverage")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, migrated, write_run):
    """A run and a made-up sweep: its files, its page, and what MLflow took of it."""
    workspace = tmp_path_factory.mktemp("agreement")
    shutil.copyfile(migrated, workspace / "mlflow.db")
    reports = write_run(workspace)
    write_sweep(reports)
    write_report(reports, profile="default")
    assert track(workspace, workspace / "work").reason == ""
    return workspace


@pytest.fixture(scope="module")
def means(workspace):
    """Mean and ends of every cell and metric in cells.csv, by phase."""
    with (workspace / "reports" / "grid" / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["phase"], Cell(row["method"], row["loss"]), row["metric"]): [
            float(row[end]) for end in ("mean", "low", "high")
        ]
        for row in rows
        if row["phase"] in COMPARED
    }


def fields(row: str) -> list[list[str]]:
    return [unescape(re.sub("<[^>]+>", " ", field)).split() for field in re.findall("<td.*?</td>", row)]


def test_the_tables_of_the_page_hold_the_means_of_the_files(workspace, means):
    text = (workspace / "reports" / "index.html").read_text()
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    for phase, title in (("tuned", "Tuned: means"), ("default", "Default settings: means")):
        (table,) = [table for table in tables if title in table]
        rows = {unescape(re.findall('<th scope="row">(.*?)</th>', row)[0]): row for row in
                re.findall("<tr.*?</tr>", table.split("<tbody>")[1], re.DOTALL)}  # fmt: skip
        cells = {cell for of, cell, _ in means if of == phase}
        assert {name_of(cell) for cell in cells} <= set(rows)
        for cell in cells:
            shown = fields(rows[name_of(cell)])[1:]
            for (name, column), said in zip(MEASURES.items(), shown, strict=True):
                mean, low, high = (column.shown(value) for value in means[phase, cell, name])
                assert said == [mean, f"[{low},", f"{high}]"]


def test_the_matrix_and_the_cards_hold_the_same(workspace, means):
    reports = workspace / "reports"
    with (reports / "figures" / "matrix.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "measured"]
    assert len(rows) == len({cell for phase, cell, _ in means if phase == "tuned"})
    text = (reports / "index.html").read_text()
    for row in rows:
        cell = Cell(row["method"], row["loss"])
        expected = means["tuned", cell, "excess"]
        assert [float(row[end]) for end in ("excess", "low", "high")] == pytest.approx(expected)
        said = "{:.1f} [{:.1f}, {:.1f}]".format(*expected)
        assert f'<strong>{name_of(cell)}</strong><br><span class="faint">excess FVD {said}</span>' in text


def test_the_terminal_prints_the_same(workspace, means):
    text = as_text(read_sweep(workspace / "reports"))
    for phase, title in (("default", "Default settings"), ("tuned", "Tuned")):
        block = text[text.index(f"{title}\n") :].split("\n\n")[0]
        for cell in {cell for of, cell, _ in means if of == phase}:
            start = " ".join(word.replace("_", " ") for word in cell)
            (line,) = [line for line in block.splitlines() if " ".join(line.split()).startswith(f"{start} ")]
            mean, low, high = (f"{value:.1f}" for value in means[phase, cell, "excess"])
            assert f"{mean} [{low}, {high}]" in line
            for name in IN_TERMINAL[1:]:
                assert MEASURES[name].shown(means[phase, cell, name][0]) in line


def test_the_page_and_mlflow_tell_of_the_same_failures(workspace):
    found = read_sweep(workspace / "reports")
    assert found.failed
    text = unescape((workspace / "reports" / "index.html").read_text())
    tags = parent(workspace).data.tags
    for name, reason in found.failed.items():
        assert f"{name}: {reason}" in text
        assert tags[f"failed.{name}"] == reason


def test_mlflow_holds_every_mean_of_the_files(workspace, means):
    metrics = parent(workspace).data.metrics
    for (phase, cell, name), (mean, low, high) in means.items():
        key = f"{phase}.{cell.method}-{cell.loss}.{name}"
        assert [metrics[key], metrics[f"{key}.low"], metrics[f"{key}.high"]] == pytest.approx([mean, low, high])


def parent(workspace: Path):
    """The run of the sweep in MLflow."""
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep' and tags.sweep = 'grid'")
    return run
