"""A tiny grid from its parameters to its tables; what fails is named, and what has not changed stays."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import parse_params
from pipeline.grid import Cell
from pipeline.grid_run import CellUnits
from pipeline.reporting.cells import read_cells
from pipeline.unit import PROJECT, digest_of
from stages.entry import stage
from sweeps import every_cell, trial
from sweeps.trial import make
from tests.tiny_run import NUM_CLIPS, ROLLOUT, raw

STARTS = {"bidirectional": "bidirectional", "self_forcing": "causal"}  # of each method: its teacher
ASKED = {  # every cell that runs, in order, with the teacher that its loss asks
    Cell("bidirectional", "l2"): "",
    Cell("bidirectional", "gan"): "bidirectional",
    Cell("bidirectional", "kd"): "bidirectional",
    Cell("bidirectional", "mean_flow"): "",
    Cell("self_forcing", "gan"): "bidirectional",
    Cell("self_forcing", "kd"): "causal",  # it follows the flow
}
EXCLUDED = {Cell("self_forcing", "l2"), Cell("self_forcing", "mean_flow")}
FAILS = Cell("self_forcing", "kd")
CLASSES = {"L2": "l2", "Gan": "gan", "Kd": "kd", "MeanFlow": "mean_flow"}
CLASSES |= {"Bidirectional": "bidirectional", "SelfForcing": "self_forcing"}


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Where the units of all these tests lie: what one has made, the others find."""
    return tmp_path_factory.mktemp("units")


@pytest.fixture
def made(workspace, units, one_process, monkeypatch, capsys):
    """The whole tiny grid."""
    monkeypatch.setenv("FORCING_GRID_WORK", str(units))
    every_cell.main(parse_params(raw()))
    return capsys.readouterr().out


def table(name):
    with Path("reports", "cells", name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {cell: [row for row in rows if of(row) == cell] for cell in dict.fromkeys(map(of, rows))}


def of(row):
    return Cell(row["method"], row["loss"])


def read(directory, name):
    return json.loads((directory / f"{name}.json").read_text())


def trained(units):
    """The directory of every cell's unit of today's parameters."""
    num_steps = raw()["grid"]["losses"]["kd"]["num_steps"]
    found = {}
    for path in units.glob("cell/*/metrics.json"):
        if read(path.parent, "unit")["work"]["loss"].get("num_steps", num_steps) == num_steps:
            cell = Cell(**{axis: CLASSES[name] for axis, name in read(path.parent, "metrics")["cell"].items()})
            assert cell not in found
            found[cell] = path.parent
    return found


def measured(units, student):
    """The directory of the one evaluation of this student."""
    digest = digest_of(student)
    paths = [path.parent for path in units.glob("evaluate/*/unit.json")]
    (found,) = [path for path in paths if read(path, "unit")["inputs"]["student"] == digest]
    return found


def times(units):
    return {path: path.stat().st_mtime_ns for path in units.rglob("metrics.json")}


def fail_in_one(task, on_share):
    """In the place of `make`: one cell fails."""
    if isinstance(task.work, CellUnits) and Cell.of(task.work.train.method, task.work.train.loss) == FAILS:
        raise FloatingPointError("student_loss is nan at step 1")
    return make(task, on_share)


@pytest.mark.slow
def test_the_grid_has_a_row_a_cell_and_one_a_start(made):
    rows = table("cells.csv")
    assert all(len(of_cell) == 1 for of_cell in rows.values())
    groups = [[Cell(m, every_cell.START), *(cell for cell in ASKED if cell.method == m)] for m in STARTS]
    assert list(rows) == [cell for group in groups for cell in group]
    updates = {cell: row["student_updates"] for cell, (row,) in rows.items()}
    assert {updates.pop(Cell(method, every_cell.START)) for method in STARTS} == {"0"}
    assert set(updates.values()) == {str(ROLLOUT["num_steps"])}
    found = read_cells(Path("reports"))
    assert set(found.trained) == set(ASKED)
    assert set(found.excluded) == EXCLUDED
    assert set(found.starts) == set(STARTS)
    assert (found.failed, found.num_clips, found.profile) == ({}, NUM_CLIPS, "default")
    for cell in ASKED:
        method, loss = (name.replace("_", " ") for name in cell)
        excess = f"{found.trained[cell].excess:.1f}"
        assert len(re.findall(rf"^{method} +{loss} +{excess} \[", made, re.MULTILINE)) == 1
    assert f"Of {len(ASKED)} cells that were trained" in made
    assert "0 failed, 2 are excluded" in made


@pytest.mark.slow
def test_every_number_is_that_of_the_unit_itself(made, units, artifacts):
    rows, directories = table("cells.csv"), trained(units)
    students = {cell: directories[cell] / "out" for cell in ASKED}
    students |= {Cell(method, every_cell.START): artifacts / "teacher" / name for method, name in STARTS.items()}
    assert len({digest_of(student) for student in students.values()}) == len(rows)  # none is another's
    with np.load("reports/cells/samples.npz") as samples:
        assert sorted(samples) == sorted(f"{cell.method}-{cell.loss}" for cell in students)
        for cell, student in students.items():
            directory, (row,) = measured(units, student), rows[cell]
            metrics = read(directory, "metrics")
            assert [float(row[name]) for name in ("excess", "excess_low", "excess_high", "drift_slope")] == [
                metrics["fvd"]["excess"],
                *metrics["fvd"]["interval"],
                metrics["drift_slope"],
            ]
            assert float(row["coverage"]) == metrics["coverage"]["coverage"]
            for name in ("first_to_second", "first_to_last"):
                assert float(row[name]) == metrics["identity"][name]
            with np.load(directory / "show" / "samples.npz") as shown:
                assert np.array_equal(samples[f"{cell.method}-{cell.loss}"], shown["generated"][: trial.NUM_SHOWN])
    for cell in ASKED:
        (row,) = rows[cell]
        metrics, seconds = read(directories[cell], "metrics"), read(directories[cell], "timing")["seconds"]
        for name in ("student_updates", "critic_updates", "clips_seen"):
            assert int(row[name]) == metrics[name]
        assert float(row["tflop"]) == round(metrics["flops"] / 1e12, 2)
        assert float(row["seconds"]) == round(seconds, 1)
        assert (row["critic_updates"], row["clips_seen"]) == (("4", "24") if cell.loss == "gan" else ("0", "8"))


@pytest.mark.slow
def test_every_cell_begins_at_its_start_and_asks_its_teacher(made, units, artifacts):
    rows = table("cells.csv")
    for cell, directory in trained(units).items():
        inputs, teacher = read(directory, "unit")["inputs"], ASKED[cell]
        assert inputs["init"] == digest_of(artifacts / "teacher" / STARTS[cell.method])
        assert inputs.get("teacher", "") == (digest_of(artifacts / "teacher" / teacher) if teacher else "")
        assert rows[cell][0]["teacher"] == teacher


@pytest.mark.slow
def test_every_curve_is_that_of_the_training(made, units):
    curves = table("curves.csv")
    assert list(curves) == list(ASKED)
    for cell, directory in trained(units).items():
        lines = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
        assert [int(row["step"]) for row in curves[cell]] == [line["step"] for line in lines] == [1, 2]
        for row, line in zip(curves[cell], lines, strict=True):
            for name in every_cell.CURVES:
                assert (float(row[name]) if row[name] else None) == line.get(name)
        assert all(bool(row["critic_loss"]) == (cell.loss == "gan") for row in curves[cell])


@pytest.mark.slow
def test_a_second_call_makes_nothing_and_writes_the_same(made, units, capsys):
    before, written = times(units), digest_of(Path("reports/cells"))
    every_cell.main(parse_params(raw()))
    assert times(units) == before
    assert digest_of(Path("reports/cells")) == written
    assert capsys.readouterr().out == made


@pytest.mark.slow
def test_another_loss_makes_its_own_cells_alone(made, units):
    before, rows, params = times(units), table("cells.csv"), raw()
    params["grid"]["losses"]["kd"]["num_steps"] = 3
    every_cell.main(parse_params(params))
    after = times(units)
    assert {path: after[path] for path in before} == before
    fresh = [path.relative_to(units).parts[0] for path in after if path not in before]
    assert sorted(fresh) == ["cell", "cell", "evaluate", "evaluate"]
    changed = {cell for cell, row in table("cells.csv").items() if row != rows[cell]}
    assert changed == {cell for cell in ASKED if cell.loss == "kd"}


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_go_on(workspace, units, monkeypatch, capsys):
    monkeypatch.setenv("FORCING_GRID_WORK", str(units))
    monkeypatch.setattr(every_cell, "make", fail_in_one)
    with pytest.raises(SystemExit) as ended:
        every_cell.main(parse_params(raw()))
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.err.count("self_forcing x kd: student_loss is nan at step 1\n") == 1
    assert "1 of 8 cells failed: self_forcing x kd\n" in said.err
    assert f"{len(ASKED) - 1} cells that were trained" in said.out
    assert "1 failed, 2 are excluded" in said.out
    found = read_cells(Path("reports"))
    assert found.failed == {FAILS: "student_loss is nan at step 1"}
    assert set(found.trained) == set(ASKED) - {FAILS}


@pytest.mark.parametrize("missing", ["prepare", "features", "codec", "teacher/causal", "teacher/bidirectional"])
def test_without_what_the_run_makes_one_line_says_what_to_do(
    missing, tmp_path, artifacts, work_root, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((PROJECT / "params.yaml").read_text())
    for name in ("prepare", "features", "codec", "teacher/causal", "teacher/bidirectional"):
        if name != missing:
            Path("artifacts", name).parent.mkdir(parents=True, exist_ok=True)
            Path("artifacts", name).symlink_to(artifacts / name)
    monkeypatch.setattr(sys, "argv", ["every_cell"])
    with pytest.raises(SystemExit) as ended:
        stage(every_cell.main)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"{Path('artifacts', missing)} must be there: run python3 -m pipeline repro first\n"
    assert said.out == ""
    assert not work_root.exists()
    assert not Path("reports").exists()
