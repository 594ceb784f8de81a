"""Sweeps of another shape than the tracked one: of one seed, untuned, with a method that has nothing yet."""

import csv
import json

import pytest

from pipeline.grid import Cell
from pipeline.reporting.laboratory.results import read_laboratory
from pipeline.reporting.matrix import draw_matrix, measured_of
from pipeline.reporting.metrics import write_metrics
from pipeline.reporting.read import read_study
from pipeline.reporting.style import new_figure, theme
from pipeline.reporting.sweep_cost import _draw_panel, costs_of
from pipeline.reporting.sweep_read import read_sweep
from pipeline.reporting.sweep_rollout import draw_drift
from tests.laboratory_files import write_laboratory_files
from tests.reporting.sweep_files import CELLS, write_sweep

TRAINED = 8  # frames


def drawn(reports, draw):
    """The numbers beside a figure, and the picture."""
    path = reports / "figure.svg"
    with theme():
        draw(read_sweep(reports), read_study(reports), path)
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file)), path.read_text()


def test_one_seed_has_no_interval_in_the_metrics_nor_beside_the_matrix(reports):
    write_sweep(reports, phases=("start", "default"), num_seeds=1, failed=())
    numbers = json.loads((write_metrics(reports) / "cell" / "self_forcing-gan.json").read_text())
    assert set(numbers) == {"excess", "excess_untuned", "recall", "agreement_last"}
    assert numbers["excess"] == numbers["excess_untuned"]
    rows, picture = drawn(reports, lambda found, study, path: draw_matrix(found, None, study, path))
    assert {(row["low"], row["high"]) for row in rows} == {("", "")}
    assert "1 seed, 1,024 clips each" in picture


def test_a_method_of_which_nothing_is_measured_says_so_in_the_drift(reports):
    phases = ("start", "default", "tuned")
    left = [(method, loss, phase, seed) for method, loss in (*CELLS, ("bidirectional", "start"))
            if method == "bidirectional" for phase in phases for seed in (1, 2, 3)]  # fmt: skip
    write_sweep(reports, left=left, failed=())
    rows, picture = drawn(reports, draw_drift)
    assert {row["method"] for row in rows} == {"teacher_forcing", "diffusion_forcing", "self_forcing"}
    assert picture.count("nothing measured") == 2  # windows and frames


def test_clips_no_longer_than_those_of_training_are_not_called_longer(reports):
    write_sweep(reports, cells=CELLS[:3], failed=())
    path = reports / "grid" / "drift.csv"
    assert "longer than" in drawn(reports, draw_drift)[1]
    head, *lines = path.read_text().splitlines(keepends=True)
    at = head.split(",").index("at")
    path.write_text("".join([head, *(line for line in lines if int(line.split(",")[at]) <= TRAINED)]))
    assert "longer than" not in drawn(reports, draw_drift)[1]


def test_a_cell_that_costs_next_to_nothing_stays_in_the_picture(reports):
    write_sweep(reports, cells=(("self_forcing", "dmd"), ("self_forcing", "gan"), ("teacher_forcing", "gan")))
    path = reports / "grid" / "trials.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "tflop": 0.0 if row["loss"] == "dmd" else row["tflop"]} for row in rows)
    found = read_sweep(reports)
    axis = new_figure(3.0, 3.0).subplots()
    _draw_panel(axis, found, costs_of(found), "tflop")
    assert axis.get_xscale() == "linear"  # a logarithm would leave it out


@pytest.mark.parametrize("switch", ["guidance", "entropy_weight", "regression_weight"])
def test_a_cell_whose_loss_has_another_term_is_not_told_what_was_measured_without_it(reports, switch):
    write_sweep(reports)
    write_laboratory_files(reports, processes=("A", "D"))
    laboratory, cell = read_laboratory(reports), Cell("self_forcing", "dmd")
    assert measured_of(read_sweep(reports), laboratory, cell).minimises
    path = reports / "grid" / "run.json"
    about = json.loads(path.read_text())
    about["grid"]["losses"]["dmd"][switch] += 0.5
    path.write_text(json.dumps(about))
    assert not measured_of(read_sweep(reports), laboratory, cell).minimises
