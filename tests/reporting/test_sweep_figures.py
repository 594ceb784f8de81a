"""The figures of a sweep: in both formats, of the numbers of its files, and whole where the sweep is not."""

import csv
import re

import numpy as np
import pytest

from pipeline.grid import Cell
from pipeline.reporting.read import TIMES, artifact_digest, read_study
from pipeline.reporting.sweep import CAPTIONS, sweep_sections
from pipeline.reporting.sweep_read import read_sweep
from pipeline.reporting.sweep_trainings import read_clips
from tests.reporting.sweep_files import CELLS, EXCLUDED, METHODS, write_sweep

FEW = (("diffusion_forcing", "dmd"), ("self_forcing", "dmd"))
FIGURES = {  # of each part of the page
    "drift": ["sweep_drift"],
    "compared": ["sweep_matrix", "sweep_ranks", "sweep_pairs"],
    "cost": ["sweep_cost"],
    "training": ["sweep_curves"],
    "clips": ["sweep_clips"],
    "audit": [],
}


def parts_of(reports, **which):
    """The parts of the page, and the figures beside them."""
    study = read_study(reports)
    write_sweep(reports, codec=artifact_digest(study.stage("codec")), profile=study.profile, **which)
    found = read_sweep(reports)
    return sweep_sections(study, found, read_clips(reports, found), reports)


def rows_in(reports, name):
    with (reports / "grid" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def data_of(reports, name):
    """The rows that stand beside a figure."""
    with (reports / "figures" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row, *names):
    return [float(row[name]) for name in names]


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    """reports/ with a whole sweep, one trial of which failed, and its figures."""
    reports = write_run(tmp_path_factory.mktemp("figures"))
    parts = parts_of(reports)
    shown = {name: re.findall(r'<figure id="figure-(\w+)"', "".join(lines)) for name, lines in parts.items()}
    assert shown == FIGURES
    return reports


@pytest.mark.parametrize("name", CAPTIONS)
def test_every_figure_is_there_in_both_formats_with_its_data(run, name):
    for kind in ("svg", "png"):
        assert (run / "figures" / f"{name}.{kind}").stat().st_size > 10_000
    assert data_of(run, name)


def test_data_of_the_matrix_are_the_means_of_the_cells(run):
    fields = {(row["phase"], row["method"], row["loss"]): row for row in data_of(run, "sweep_matrix")}
    means = [row for row in rows_in(run, "cells") if row["metric"] == "excess"]
    assert len(fields) == len(means) + 2 * len(EXCLUDED)
    for row in means:
        shown = fields[row["phase"], row["method"], row["loss"]]
        assert numbers(shown, "excess_fvd", "low", "high", "num_seeds") == numbers(
            row, "mean", "low", "high", "num_seeds"
        )
        assert (shown["status"], shown["num_clips"]) == ("done", "1024")
    excluded = fields["tuned", "self_forcing", "l2"]
    assert (excluded["status"], excluded["excess_fvd"]) == ("excluded", "")
    assert excluded["reason"] == EXCLUDED["self_forcing-l2"]


def test_data_of_ranks_and_pairs_are_those_of_the_files(run):
    shown = data_of(run, "sweep_ranks")
    places = [row for row in shown if row["panel"] == "rank by excess FVD"]
    ranks = {(row["phase"], row["cell"]): numbers(row, "rank", "low", "high") for row in rows_in(run, "ranks")}
    assert {(row["phase"], row["cell"]): numbers(row, "place", "low", "high") for row in places} == ranks
    frame = [row for row in shown if row["panel"] == "Self-Forcing, frame-wise"]
    assert {row["published_place"] for row in frame if row["cell"] == "self_forcing-dmd"} == {"1"}
    pairs = [(row["phase"], row["a"], row["b"], row["difference"]) for row in rows_in(run, "pairs")]
    assert [(row["phase"], row["a"], row["b"], row["difference"]) for row in data_of(run, "sweep_pairs")] == pairs


def test_data_of_drift_are_means_and_ranges_above_the_floor(run):
    shown = data_of(run, "sweep_drift")
    assert len(shown) == (len(METHODS) + len(CELLS)) * (3 + 16)  # windows and frames
    for measure, at in (("window", "5"), ("frame", "16")):
        wanted = {"method": "self_forcing", "loss": "gan", "phase": "tuned", "measure": measure}
        values = [
            float(row["distance"]) - float(row["floor"])
            for row in rows_in(run, "drift")
            if row.items() >= {**wanted, "at": at}.items()
        ]
        (row,) = (row for row in shown if row.items() >= {**wanted, "at_frame": at}.items())
        assert len(values) == int(row["num_seeds"]) == 3
        found = numbers(row, "above_floor_mean", "above_floor_min", "above_floor_max")
        assert found == pytest.approx([np.mean(values), min(values), max(values)])


def test_data_of_cost_are_means_of_the_trials_and_mark_the_frontier(run):
    shown = {(row["method"], row["loss"]): row for row in data_of(run, "sweep_cost")}
    assert set(shown) == set(CELLS)
    trials = [row for row in rows_in(run, "trials") if (row["phase"], row["status"]) == ("tuned", "done")]
    for cell, row in shown.items():
        of_cell = [trial for trial in trials if (trial["method"], trial["loss"]) == cell]
        for name in ("tflop", "seconds", "calls_per_frame", "latency_ms", "frames_per_s"):
            assert float(row[name]) == pytest.approx(np.mean([float(trial[name]) for trial in of_cell]))
        assert float(row["updates"]) == sum(numbers(row, "student_updates", "critic_updates"))
        cost, excess = numbers(row, "tflop", "excess_fvd")
        others = [numbers(other, "tflop", "excess_fvd") for other in shown.values()]
        is_beaten = any(other[0] <= cost and other[1] < excess for other in others)
        assert ("tflop" in row["on_frontier_of"].split()) is not is_beaten
        assert "latency_ms" not in row["on_frontier_of"]


def test_data_of_curves_and_clips_are_those_that_are_shown(run):
    row = next(r for r in data_of(run, "sweep_curves") if (r["quantity"], r["loss"]) == ("critic_loss", "gan"))
    assert row["phase"] == "tuned"  # the critics of the last phase alone are drawn
    same = {name: row[name] for name in ("phase", "method", "loss", "step")}
    values = [float(p["critic_loss"]) for p in rows_in(run, "curves") if p.items() >= same.items()]
    assert numbers(row, "mean", "min", "max") == pytest.approx([np.mean(values), min(values), max(values)])
    clips = data_of(run, "sweep_clips")
    assert [row["clip"] for row in clips] == ["0", "1"] * (len(METHODS) + len(CELLS))
    assert {(row["first_frame"], row["last_frame"]) for row in clips} == {("1", "8")}  # as long as training clips
    assert "image-rendering:pixelated" in (run / "figures" / "sweep_clips.svg").read_text()


def test_figures_of_a_smoke_sweep_with_cells_left_to_be_made_warn_and_name_them(tmp_path, write_run):
    reports = write_run(tmp_path, "smoke")
    left = [("self_forcing", "dmd", "tuned", seed) for seed in (1, 2, 3)]
    parts = parts_of(reports, left=left, failed=(), missing=["self_forcing-dmd tuned seed 1"])
    text = "".join(line for part in parts.values() for line in part)
    assert text.count("profile smoke: these numbers mean nothing") == len(CAPTIONS) + 4  # and tables
    for name in CAPTIONS:
        assert "#b00020" in (reports / "figures" / f"{name}.svg").read_text()
    assert read_sweep(reports).absence("tuned", Cell("self_forcing", "dmd")) == ("missing", "")
    assert f"self forcing {TIMES} dmd has none" in "".join(parts["compared"])
    for name in ("drift", "cost"):
        assert parts[name][0] == f'<p class="warning">not measured, tuned: self forcing {TIMES} dmd (missing)</p>'
        shown = {(row["method"], row["loss"]) for row in data_of(reports, f"sweep_{name}")}
        assert ("self_forcing", "sid") in shown
        assert ("self_forcing", "dmd") not in shown
    assert {row["status"] for row in data_of(reports, "sweep_matrix") if row["loss"] == "dmd"} == {
        "done",
        "missing",
    }


def test_figures_are_the_same_bytes_in_another_place(tmp_path, write_run):
    places = [write_run(tmp_path / name) for name in ("here", "there")]
    pages = [parts_of(reports, cells=FEW) for reports in places]
    assert pages[0] == pages[1]
    for name in CAPTIONS:
        for kind in ("svg", "png", "csv"):
            files = [(reports / "figures" / f"{name}.{kind}").read_bytes() for reports in places]
            assert files[0] == files[1]
