"""A tiny comparison of ways to begin, from its units to its tables; and what these units have in common."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.causal_forcing import CausalForcing
from pipeline.config import parse_params
from pipeline.methods.self_forcing import SelfForcing
from pipeline.training.init import CONTEXTS, Setting
from pipeline.unit import PROJECT, digest_of
from stages.entry import stage
from sweeps import causal_forcing
from sweeps.causal_forcing import make
from tests.tiny_run import raw

INITS = ["teacher", "ode_regression_causal", "ode_regression_bidirectional", "consistency"]
GIVEN = ("prepare", "features", "codec", "causal", "bidirectional")


def table(name):
    with Path("reports", "causal_forcing", name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_init_has_its_line_and_a_second_call_makes_nothing(workspace, work_root, one_process, capsys):
    params = parse_params(raw())
    causal_forcing.main(params)
    rows = table("inits.csv")
    assert [row["init"] for row in rows] == INITS
    assert [row["updates"] for row in rows] == ["0", "4", "4", "4"]
    assert {row["rollout_updates"] for row in rows} == {"2"}
    for column in ("residual_causal", "residual_bidirectional", "excess", "rollout_excess"):
        assert len({row[column] for row in rows}) == 4, column  # none is another's
    residuals = table("residuals.csv")
    assert len(residuals) == 4 * 2 * (2 + 8)  # levels, frames
    for row in rows:
        assert float(row["excess_low"]) < float(row["excess"]) < float(row["excess_high"])
        own = [r for r in residuals if r["init"] == row["init"] and r["teacher"] == "causal" and not r["frame"]]
        mean = np.mean([float(r["residual"]) for r in own])
        assert mean == pytest.approx(float(row["residual_causal"]))
    about = json.loads(Path("reports/causal_forcing/run.json").read_text())
    assert about["params"]["num_heldout"] == 6
    assert about["failed"] == {}
    assert "regression, bidirectional" in capsys.readouterr().out

    units = {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")}
    # 4 stores; and of each init: itself, 2 measures of clips, 2 residuals and a rollout
    assert len(units) == 4 + 4 * 6
    before = digest_of(Path("reports/causal_forcing"))
    causal_forcing.main(params)
    assert {path: path.stat().st_mtime_ns for path in work_root.rglob("metrics.json")} == units
    assert digest_of(Path("reports/causal_forcing")) == before


def only_regressions(experiment):
    """In the place of `inits`."""
    return {f"ode_regression_{attention}": experiment.regression(attention) for attention in CONTEXTS}


def make_but_one(task, on_share):
    """In the place of `make`: one regression fails."""
    if any(unit.reads.get("trajectories") == "bidirectional_train" for unit in task.units):
        raise FloatingPointError("student_loss is nan at step 3")
    return make(task, on_share)


@pytest.mark.slow
def test_an_init_that_fails_is_named_and_the_others_go_on(workspace, one_process, monkeypatch, capsys):
    monkeypatch.setattr(CausalForcing, "inits", only_regressions)
    monkeypatch.setattr(causal_forcing, "make", make_but_one)
    with pytest.raises(SystemExit) as ended:
        causal_forcing.main(parse_params(raw()))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("ode_regression_bidirectional: student_loss is nan at step 3\n") == 1
    assert "1 of 2 inits failed: ode_regression_bidirectional\n" in said
    assert [row["init"] for row in table("inits.csv")] == ["ode_regression_causal"]
    failed = json.loads(Path("reports/causal_forcing/run.json").read_text())["failed"]
    assert failed == {"ode_regression_bidirectional": "student_loss is nan at step 3"}


def test_without_the_teachers_one_line_says_what_to_do(tmp_path, work_root, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((PROJECT / "params.yaml").read_text())
    for name in ("prepare", "features", "codec"):
        Path("artifacts", name).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["causal_forcing"])
    with pytest.raises(SystemExit) as ended:
        stage(causal_forcing.main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"{Path('artifacts/teacher/causal')} must be there: run python3 -m pipeline repro first\n"
    assert not work_root.exists()


def test_inits_differ_in_how_they_begin_alone():
    params = parse_params(raw())
    experiment = params.causal_forcing
    setting = Setting(params.denoiser, params.sampler, params.seed, 1)
    after = []
    for name, init in experiment.inits().items():
        units = experiment.units(name, setting, SelfForcing(params.sampler), params.evaluate)
        begin = init.units(setting)
        assert units[: len(begin)] == begin
        after.append(units[len(begin) :])
        measured = [unit.work for unit in units if unit.kind == "evaluate"]
        assert [work.sampler for work in measured] == [params.sampler] * 2
        assert {(work.num_clips, work.bits, work.num_threads) for work in measured} == {(24, None, 1)}
        assert all(source in {*GIVEN, *(u.name for u in units)} for unit in units for source in unit.reads.values())
    assert all(rest == after[0] for rest in after)
    assert [init.training for name, init in experiment.inits().items() if name != "teacher"] == [
        experiment.training
    ] * 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_heldout": 1}, "num_heldout must be at least 2, got 1"),
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        ({"num_trajectories": 0}, "num_trajectories must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ],
)
def test_impossible_experiments_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(parse_params(raw()).causal_forcing, **changes)
