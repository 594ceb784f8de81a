"""Beside every figure of the chain stand its numbers: those of the records."""

import csv

import pytest

from pipeline.reporting.figures import FIGURES, draw_all
from pipeline.reporting.read import lookup, read_study
from pipeline.reporting.style import marker
from pipeline.reporting.weighting import LOG_SNR


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, write_run):
    """A study, and the directory of its figures."""
    reports = write_run(tmp_path_factory.mktemp("figures"))
    study = read_study(reports)
    draw_all(study, reports / "figures")
    return study, reports / "figures"


def rows_of(drawn, name):
    with (drawn[1] / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def by_checkpoint(drawn, name):
    return {row["checkpoint"]: row for row in rows_of(drawn, name)}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_there_in_both_formats_with_its_data(drawn, name):
    for kind in ("svg", "png"):
        assert (drawn[1] / f"{name}.{kind}").stat().st_size > 10_000
    assert rows_of(drawn, name)


def test_bars_and_points_are_those_of_the_records(drawn):
    bars, points, costs = (by_checkpoint(drawn, name) for name in ("excess", "support", "cost"))
    for checkpoint in drawn[0].checkpoints:
        fvd, coverage = (lookup(checkpoint.measured, f"metrics.{name}") for name in ("fvd", "coverage"))
        bar = bars[checkpoint.name]
        assert [float(bar[name]) for name in ("low", "high")] == fvd["interval"]
        for name in ("floor", "excess", "num_clips"):
            assert float(bar[name]) == fvd[name]
        assert {name: float(points[checkpoint.name][name]) for name in coverage} == coverage
        origin = drawn[0].origin_of(checkpoint)
        assert costs[checkpoint.name]["began_as"] == (origin.name if origin else "")
        assert float(costs[checkpoint.name]["first_to_last"]) == lookup(
            checkpoint.measured, "metrics.identity.first_to_last"
        )


def test_curves_along_the_rollout_are_those_of_the_records(drawn):
    rows = rows_of(drawn, "drift")
    for checkpoint in drawn[0].checkpoints:
        for measure, at, distance in (("frame", "index", "distance"), ("window", "start", "fvd")):
            found = lookup(checkpoint.measured, f"metrics.{measure}s")
            shown = [row for row in rows if (row["checkpoint"], row["measure"]) == (checkpoint.name, measure)]
            assert [int(row["at_frame"]) for row in shown] == found[at]
            assert [float(row["distance"]) for row in shown] == found[distance]
            assert [float(row["floor"]) for row in shown] == found["floor"]


def test_curves_of_training_hold_every_value(drawn):
    rows = rows_of(drawn, "training")
    record = drawn[0].stage("init")
    for metric in ("student_loss", "grad_norm"):
        shown = [row for row in rows if (row["stage"], row["metric"]) == ("init", metric)]
        assert [(int(row["step"]), float(row["value"])) for row in shown] == [
            (point["step"], point[metric]) for point in record.curve
        ]


def test_clips_that_are_shown_are_named_with_the_numbers_beside_them(drawn):
    rows = rows_of(drawn, "overview")
    assert len(rows) == 2 * (1 + len(drawn[0].checkpoints))
    assert {row["last_frame"] for row in rows} == {"8"}
    shown = {row["clips_of"]: row for row in rows}
    for checkpoint in drawn[0].checkpoints:
        assert float(shown[checkpoint.name]["excess_fvd"]) == lookup(checkpoint.measured, "metrics.fvd.excess")


def test_weights_are_given_at_every_log_snr_of_each_objective(drawn):
    rows = rows_of(drawn, "weighting")
    of = {row["objective_of"] for row in rows}
    assert of == {"teacher@causal teacher@bidirectional", "fake score of distill@dmd rollout@dmd"}
    assert [float(row["log_snr"]) for row in rows] == 2 * LOG_SNR.tolist()


def test_no_two_checkpoints_look_alike_in_grey(drawn):
    study = drawn[0]
    assert len({marker(study, checkpoint) for checkpoint in study.checkpoints}) == len(study.checkpoints)


def test_clips_stay_crisp_when_magnified(drawn):
    assert "image-rendering:pixelated" in (drawn[1] / "overview.svg").read_text()
