"""A tiny laboratory, from its units to its tables."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import parse_params
from pipeline.laboratory import predict
from pipeline.laboratory.optima import objectives_for
from pipeline.laboratory.run import ExposureRun
from pipeline.unit import digest_of
from sweeps import laboratory
from sweeps.laboratory import EXPOSURE, PREDICTED, as_text, tasks_of
from tests.parameters import changed, raw, refusal

CELLS = ("bidirectional-l2_flow", "bidirectional-dmd")
NEURAL_CELLS = ("teacher_forcing-l2", "teacher_forcing-dmd")
FLOW_MAPS = ("consistency_training", "consistency_distillation", "mean_flow")  # predicted beside them
FEW = ("forward_kl", "reverse_kl", "reverse_kl_averaged", "l2_flow_bidirectional")


def tiny():
    """Two cells on one process, by a few steps, with exact and learned critics."""
    params = raw()
    training = {"num_steps": 4, "batch_size": 32, "report_every": 2, "checkpoint_every": 4}
    params["laboratory"] |= {
        "processes": ["A"],
        "num_seeds": 2,
        "num_clips": 256,
        "cells": {name: params["laboratory"]["cells"][name] for name in CELLS},
        "training": {**params["laboratory"]["training"], **training},
        "learned_training": {**params["laboratory"]["learned_training"], **training},
    }
    params["laboratory"]["exposure"] |= {"num_rollouts": 64, "num_frames": 3}
    params["laboratory"]["neural"] |= {
        "num_seeds": 1,
        "num_clips": 64,
        "num_paths": 8,
        "num_samples": 32,
        "bias_samples": [32],
        "bias_repeats": 2,
        "cells": {name: params["laboratory"]["neural"]["cells"][name] for name in NEURAL_CELLS},
        "trainings": {name: one | training for name, one in params["laboratory"]["neural"]["trainings"].items()},
    }
    return parse_params(params)


@pytest.fixture
def few_objectives(monkeypatch):
    """Whose optima are found at once."""
    monkeypatch.setattr(predict, "objectives_for", lambda law: {name: objectives_for(law)[name] for name in FEW})


def table(name):
    with Path("reports", "laboratory", name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_unit_has_its_line_and_a_second_call_makes_nothing(
    tmp_path, work_root, one_process, few_objectives, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    params = tiny()
    laboratory.main(params)
    measured = table("measured.csv")
    assert [(row["cell"], row["critics"], row["seed"]) for row in measured] == [
        (name, critics, seed)
        for seed in ("0", "1")
        for name, critics in ((CELLS[0], "exact"), (CELLS[1], "exact"), (CELLS[1], "learned"))
    ]
    assert len({row["m"] for row in measured}) == len(measured)  # none is another's
    predicted = {row["objective"]: row for row in table("predicted.csv") if row["rank"] == "0"}
    assert set(predicted) == {*FEW, *FLOW_MAPS}
    assert float(predicted["reverse_kl"]["m"]) == pytest.approx(0.1479, abs=1e-3)
    verdicts = table("verdicts.csv")
    assert [(row["cell"], row["critics"]) for row in verdicts] == [
        (CELLS[0], "exact"),
        (CELLS[1], "exact"),
        (CELLS[1], "learned"),
    ]
    on_data = verdicts[0]
    mean = sum(float(row["m"]) for row in measured if row["cell"] == CELLS[0]) / 2
    assert float(on_data["m"]) == pytest.approx(mean)
    assert (on_data["claimed"], on_data["derived"]) == ("forward_kl", "l2_flow_bidirectional")
    assert [(row["claim"], row["reading"]) for row in table("claims.csv")] == [
        ("bidirectional x l2 (flow): forward_kl", "table"),
        ("bidirectional x l2 (flow): forward_kl", "text"),
    ]
    assert len(table("exposure.csv")) == 2 * 7 * 3  # seeds, students, frames
    assert len(table("curves.csv")) == 6 * 2  # reports
    assert [row["cell"] for row in table("neural.csv")] == [cell for cell in NEURAL_CELLS for _ in range(3)]
    assert len(table("neural_modes.csv")) == 2 * 2  # students, modes
    assert len(table("neural_steps.csv")) == 2 * 2 * 4  # students, contexts, frames
    assert len(table("estimators.csv")) == 4 * 3 * 2  # pairs, divergences, estimators
    about = json.loads(Path("reports/laboratory/run.json").read_text())
    assert about["params"]["num_seeds"] == 2
    assert about["failed"] == {}
    assert "bidirectional x l2 (flow): forward_kl (table): " in capsys.readouterr().out

    units = {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")}
    assert len(units) == 1 + 6 + 2 * 4 + 2 + 1
    before = digest_of(Path("reports/laboratory"))
    laboratory.main(params)
    assert {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")} == units
    assert digest_of(Path("reports/laboratory")) == before


def test_predictions_come_first_and_every_seed_has_its_units():
    run = tiny().laboratory
    keys = list(tasks_of(run, 5))
    assert [key for key in keys if key.cell == PREDICTED] == keys[:1]
    assert {key.seed for key in keys} == {5, 6}
    assert {key.process for key in keys if key.cell == EXPOSURE} == set(ExposureRun().units(run.training, 0, 16))
    assert len(set(tasks_of(replace(run, processes=("A", "L")), 5))) == len(keys) + 1 + 2  # l2_flow is on L, too


def test_a_table_without_verdicts_is_empty():
    assert as_text([]).startswith("cell  on  settles next to  away  derived  claimed\n\n")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("laboratory.processes", ["Z"], "laboratory: processes must be one of A, B, C, D, E, F, G, H, L, got 'Z'"),
        ("laboratory.processes", [], "laboratory: processes must name at least one, got none"),
        ("laboratory.cells", {}, "laboratory: cells must name at least one, got none"),
        ("laboratory.rules.margin", 0.5, "laboratory.rules: margin must be at least 1, got 0.5"),
        ("laboratory.num_seeds", 0, "laboratory: num_seeds must be at least 1, got 0"),
        ("laboratory.cells.bidirectional-kd.learned", ["L"], "learned must be one of A, D, got 'L'"),
        (
            "laboratory.cells.self_forcing-sid.loss",
            {"name": "l2"},
            "cells.self_forcing-sid on D: method must provide a target for the loss L2, got SelfForcing",
        ),
    ],
)
def test_impossible_laboratories_are_refused(path, value, says):
    assert says in refusal(changed(path, value))
