"""A tiny sweep from its parameters to its tables: what is run, what is found, what fails, what is compared."""

import contextlib
import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import parse_params
from pipeline.grid import Cell
from pipeline.sweep.plan import Trial
from pipeline.training.cell import TrainCell
from pipeline.unit import PROJECT, digest_of, run_unit
from stages.entry import stage
from sweeps import executor, finished, run
from sweeps.on_ray import Event
from sweeps.parallel import one_line
from sweeps.trial import inputs_of_evaluation, make
from tests.tiny_run import raw

CELLS = {"bidirectional-l2", "bidirectional-gan", "self_forcing-gan"}
NUM_UPDATES = 2


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Where the units of all these tests lie: what one has made, the others find."""
    return tmp_path_factory.mktemp("units")


@pytest.fixture
def calls(workspace, units, monkeypatch):
    """What was asked of Ray, whose place one process takes; no page is drawn and no table printed."""
    names: list[str] = []

    def on_ray(run, tasks, *, resources, max_failures):
        for name, task in tasks.items():
            names.append(name)
            try:
                yield Event(name, 1.0, run(task, lambda *_: None), is_last=True)
            except FloatingPointError as error:
                yield Event(name, failure=one_line(error), is_last=True)

    monkeypatch.setenv("FORCING_GRID_WORK", str(units))
    monkeypatch.setattr(executor, "on_ray", on_ray)
    monkeypatch.setattr(executor, "cluster", lambda _: contextlib.nullcontext(2))
    finished.digest_once.cache_clear()
    return names


def sweep(**changes):
    """The tiny sweep with some of its parameters changed; its exit code."""
    params = raw()
    params["sweep"] |= changes
    with pytest.raises(SystemExit) as ended:
        run.main(parse_params(params))
    return ended.value.code


def table(name):
    with Path("reports", "grid", f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cell_of(row):
    return f"{row['method']}-{row['loss']}"


def about():
    return json.loads(Path("reports", "grid", "run.json").read_text())


@pytest.mark.slow
def test_every_cell_has_its_seeds_untuned_and_tuned(calls):
    assert sweep() == 0
    rows = table("trials")
    counts = Counter((row["phase"], cell_of(row)) for row in rows)
    assert counts == {
        **{("start", f"{method}-start"): 2 for method in ("bidirectional", "self_forcing")},
        **{(phase, cell): 2 for phase in ("default", "tuning", "tuned") for cell in CELLS},
    }
    assert {row["status"] for row in rows} == {"done"}
    assert {(row["phase"] == "tuning", row["split"]) for row in rows} == {(True, "metric"), (False, "test")}
    assert {row["seed"] for row in rows if row["phase"] == "tuning"} == {"0"}
    assert {row["seed"] for row in rows if row["phase"] != "tuning"} == {"1", "2"}
    assert {row["student_updates"] for row in rows if row["loss"] != "start"} == {str(NUM_UPDATES)}
    assert about()["excluded"] == {"self_forcing-l2": Cell("self_forcing", "l2").excluded}
    assert about()["missing"] == []


@pytest.mark.slow
def test_tuning_takes_the_setting_with_the_least_excess_on_the_metric_clips(calls):
    sweep()
    rows = table("trials")
    for cell in CELLS:
        tried = [row for row in rows if (row["phase"], cell_of(row)) == ("tuning", cell)]
        best = min(tried, key=lambda row: float(row["excess"]))
        settings = ("learning_rate", "critic_rate_factor", "critic_updates_a_step")
        for row in rows:
            if (row["phase"], cell_of(row)) == ("tuned", cell):
                assert [row[name] for name in settings] == [best[name] for name in settings]


@pytest.mark.slow
def test_a_second_call_asks_nothing_and_writes_the_same(calls):
    sweep()
    calls.clear()
    written = digest_of(Path("reports/grid"))
    assert sweep() == 0
    assert calls == []
    assert digest_of(Path("reports/grid")) == written


@pytest.mark.slow
def test_a_unit_that_lost_a_product_is_made_again(calls, units):
    sweep()
    calls.clear()
    written = table("trials")
    lost = next(row for row in written if row["phase"] == "default")
    (units / "evaluate" / lost["evaluate_fingerprint"] / "show" / "samples.npz").unlink()
    assert sweep() == 0
    assert len(calls) == 1
    made_anew = ("evaluate_seconds", "latency_ms", "frames_per_s")
    assert [{k: v for k, v in row.items() if k not in made_anew} for row in table("trials")] == [
        {k: v for k, v in row.items() if k not in made_anew} for row in written
    ]


@pytest.mark.slow
def test_another_seed_makes_its_own_trials_alone(calls):
    sweep()
    calls.clear()
    sweep(seeds=[1, 2, 3])
    assert calls
    assert all(name.endswith(" seed 3") for name in calls)


@pytest.mark.slow
def test_a_trial_that_fails_is_named_and_the_others_go_on(calls, monkeypatch, capsys):
    def fail_once(task, on_share):
        if task.train is not None and (task.train.seed, type(task.train.loss).__name__) == (5, "L2"):
            raise FloatingPointError("student_loss is nan at step 1")
        return make(task, on_share)

    monkeypatch.setattr(run, "make", fail_once)
    assert sweep(seeds=[1, 5], tuning=None) == 1
    assert about()["failed"] == {"bidirectional-l2 default seed 5": "student_loss is nan at step 1"}
    said = capsys.readouterr()
    assert "1 of 10 trials failed: bidirectional-l2 default seed 5\n" in said.err
    rows = {(cell_of(row), row["seed"]): row for row in table("trials") if row["phase"] == "default"}
    assert len(rows) == len(CELLS) * 2
    assert rows["bidirectional-l2", "5"]["status"] == "failed"
    assert rows["bidirectional-l2", "5"]["reason"] == "student_loss is nan at step 1"
    assert rows["bidirectional-l2", "1"]["status"] == "done"
    means = {cell_of(row): row["num_seeds"] for row in table("cells") if row["metric"] == "excess"}
    assert (means["bidirectional-l2"], means["self_forcing-gan"]) == ("1", "2")


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_keeps_what_it_has(calls, monkeypatch):
    def interrupt(task, on_share):
        if task.train is not None and task.train.seed == 6:
            raise KeyboardInterrupt
        return make(task, on_share)

    monkeypatch.setattr(run, "make", interrupt)
    assert sweep(seeds=[1, 6], tuning=None) == 130
    assert {row["seed"] for row in table("trials") if row["phase"] == "default"} == {"1"}
    assert sorted(about()["missing"]) == sorted(f"{cell} default seed 6" for cell in CELLS)


@pytest.mark.slow
def test_equal_operations_give_the_dearer_cell_fewer_steps(calls, units):
    sweep(seeds=[1], tuning=None)
    flops = {
        cell_of(row): json.loads((units / "cell" / row["train_fingerprint"] / "metrics.json").read_text())["flops"]
        for row in table("trials")
        if row["phase"] == "default"
    }
    budget = 2.5 * flops["bidirectional-gan"] / NUM_UPDATES / 1e12
    sweep(seeds=[1], tuning=None, budget={"name": "operations", "tflop": budget})
    steps = {cell_of(row): int(row["num_steps"]) for row in table("trials") if row["phase"] == "default"}
    assert steps["bidirectional-gan"] == 2
    assert steps["bidirectional-l2"] == int(budget * 1e12 * NUM_UPDATES / flops["bidirectional-l2"]) > 2


@pytest.mark.slow
def test_equal_clips_count_those_of_critics(calls):
    assert sweep(seeds=[1], tuning=None, budget={"name": "clips", "num_clips": 24}) == 0
    seen = {
        cell_of(row): (row["num_steps"], row["clips_seen"]) for row in table("trials") if row["loss"] != "start"
    }
    assert seen == {  # batches of 4; two critic updates before each of the student
        "bidirectional-l2": ("6", "24"),
        "bidirectional-gan": ("2", "24"),
        "self_forcing-gan": ("2", "24"),
    }


@pytest.mark.slow
def test_equal_time_counts_by_a_price_that_is_measured_once(calls):
    budget = {"name": "seconds", "seconds": 0.5}
    sweep(seeds=[1], tuning=None, budget=budget)
    assert sum("critic updates" in name for name in calls) == len(CELLS)
    steps = [row["num_steps"] for row in table("trials")]
    calls.clear()
    sweep(seeds=[1], tuning=None, budget=budget)
    assert [row["num_steps"] for row in table("trials")] == steps  # the price is a unit, too
    assert not any("seed" in name for name in calls)


@pytest.mark.slow
def test_a_budget_that_pays_no_step_is_one_line(calls, monkeypatch, capsys):
    params = raw()
    params["sweep"] |= {"tuning": None, "budget": {"name": "operations", "tflop": 1e-9}}
    with pytest.raises(ValueError, match=r"tflop must be at least the TFLOP of one step, [\d.e-]+: got 1e-09"):
        run.main(parse_params(params))


def test_a_trial_is_the_unit_of_the_stage_that_trains_the_same():
    params = raw()
    params |= {"num_threads": 1, "init": {"name": "teacher"}}
    del params["checkpoints"]["init"]  # which then trains nothing
    method = {name: value for name, value in params["distill"]["method"].items() if name != "name"}
    params["grid"]["methods"]["diffusion_forcing"] = method
    params["grid"]["losses"]["gan"] = params["distill"]["losses"]["gan"]
    training = params["grid"]["training"] = params["distill"]["training"]["gan"]
    budget = {"name": "updates", "num_updates": training["num_steps"]}
    params["sweep"] |= {"cells": ["diffusion_forcing-gan"], "budget": budget, "tuning": None}
    params["sweep"]["checkpoint_every"] = training["checkpoint_every"]
    parsed = parse_params(params)
    trial = Trial(Cell("diffusion_forcing", "gan"), "default", parsed.seed)
    units = parsed.trial_units(trial, training["num_steps"])
    assert units.train == parsed.student_unit("distill", "gan")
    assert units.teacher == parsed.student_teacher("distill", "gan")


@pytest.mark.slow
def test_what_is_found_is_what_a_unit_would_return(calls, artifacts):
    params = parse_params(raw())
    task = run.task_of(run.Sweep(params), Trial(Cell("self_forcing", "start"), "start", 1))
    directory = run_unit("evaluate", task.evaluate, inputs_of_evaluation(task.inputs, task.inputs["init"]))
    assert (finished.first_unit(task), finished.finished(task) is not None) == (directory, True)


@pytest.mark.parametrize("missing", ["prepare", "codec", "teacher/bidirectional"])
def test_without_what_the_run_makes_nothing_is_started(missing, tmp_path, artifacts, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((PROJECT / "params.yaml").read_text())
    for name in ("prepare", "features", "codec", "teacher/causal", "teacher/bidirectional"):
        if name != missing:
            Path("artifacts", name).parent.mkdir(parents=True, exist_ok=True)
            Path("artifacts", name).symlink_to(artifacts / name)
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(SystemExit) as ended:
        stage(run.main)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"{Path('artifacts', missing)} must be there: run python3 -m pipeline repro first\n"
    assert not Path("reports").exists()


@pytest.mark.slow
def test_units_are_kept_at_an_address_from_which_another_node_goes_on(calls, tmp_path, monkeypatch):
    storage = f"file://{tmp_path}/storage"
    changes = {"seeds": [7], "tuning": None, "cells": ["self_forcing-gan"], "storage": storage}
    assert sweep(**changes) == 0
    first = table("trials")
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "other_node"))
    monkeypatch.setattr(TrainCell, "run", None)  # it need not train anything
    assert sweep(**changes) == 0
    assert table("trials") == first
    assert (tmp_path / "other_node" / "inputs").is_dir()


def test_storage_that_cannot_be_written_is_one_line(calls, tmp_path):
    (tmp_path / "file").write_text("no folder")
    params = raw()
    params["sweep"]["storage"] = f"file://{tmp_path}/file/below"
    with pytest.raises(ValueError, match=r"sweep\.storage must be an address where files can be written"):
        run.main(parse_params(params))
    assert calls == []


@pytest.mark.slow
def test_drift_tells_every_window_and_frame_of_what_the_test_clips_judge(calls):
    sweep()
    keys, frames = ("method", "loss", "phase", "seed"), {}
    trials = {tuple(row[k] for k in keys): row for row in table("trials") if row["phase"] != "tuning"}
    for row in table("drift"):
        frames.setdefault(tuple(row[k] for k in keys), {}).setdefault(row["measure"], []).append(int(row["at"]))
    assert set(frames) == set(trials)
    for key, trial in trials.items():
        assert frames[key]["window"][0] == 1
        assert frames[key]["frame"] == list(range(1, len(frames[key]["frame"]) + 1))
        assert min(float(trial[name]) for name in ("latency_ms", "frames_per_s")) > 0
