"""The command: JSON on stdout, one line and status 2 for what cannot be."""

import dataclasses
import json

import pytest
import torch

from pipeline.laboratory import flow_map
from pipeline.laboratory.__main__ import main
from pipeline.laboratory.objective import Objective
from pipeline.laboratory.objectives import OBJECTIVES
from pipeline.laboratory.optima import Laboratory, NoOptimumError, objectives_for
from pipeline.laboratory.quadrature import FINE
from pipeline.laboratory.sinkhorn import TransportError
from tests.processes import PROCESSES


def test_a_prediction_is_printed_as_json(capsys):
    assert main(["predict", "--process", "A", "--objective", "reverse_kl", "--objective", "sid_1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["process"], printed["student"]) == ("A", "gaussian")
    assert printed["optima"]["reverse_kl"]["parameters"] == pytest.approx({"m": 0.14794, "s": 0.63093}, abs=1e-4)
    assert printed["optima"]["reverse_kl"]["value"] == pytest.approx(0.17603, abs=1e-4)
    assert printed["optima"]["sid_1"]["value"] is None  # a fixed point is the least of nothing


def test_a_collapsed_student_has_no_finite_divergence(capsys):
    assert main(["predict", "--process", "A", "--objective", "entropy_1"]) == 0
    assert json.loads(capsys.readouterr().out)["optima"]["entropy_1"]["reverse_kl"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--process", "Z"], "process must be one of A, B, C, D, E, F, G, H, L, got 'Z'"),
        (["--process", "A", "--frames", "3"], "num_frames must be 1 for a mixture on the line, got 3"),
        (["--process", "A", "--student", "tied"], "num_frames must be at least 2, got 1"),
        (["--process", "A", "--pixels", "0"], "num_pixels must be at least 1, got 0"),
        (["--process", "A", "--objective", "kl"], "objective must be one of forward_kl"),
        (["--process", "A", "--objective", "kl"], "mean_flow, got 'kl'"),
        (["--process", "D", "--frames", "4", "--objective", "forward_kl_averaged_independent"], "must be one of"),
    ],
)
def test_what_cannot_be_predicted_is_one_line_and_status_two(capsys, arguments, words):
    assert main(["predict", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_a_missing_process_is_one_line_and_status_two(capsys):
    with pytest.raises(SystemExit) as left:
        main(["predict"])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_losses_that_regress_a_flow_map_are_predicted_beside_the_objectives(capsys):
    assert main(["predict", "--process", "A", "--objective", "consistency_training"]) == 0
    found = json.loads(capsys.readouterr().out)["optima"]["consistency_training"]
    assert found["parameters"] == pytest.approx({"m": 0.5, "s": 0.90534}, abs=1e-4)
    assert found["is_field"]


def test_divergences_of_a_flow_map_grow_with_pixels(capsys):
    one, three = (_predicted(capsys, "A", f"--pixels={n}", "--objective=consistency_training") for n in (1, 3))
    for name in ("forward_kl", "reverse_kl"):
        values = [printed["optima"]["consistency_training"][name] for printed in (one, three)]
        assert values[1] == pytest.approx(3 * values[0])


def test_only_the_flow_map_that_is_asked_for_is_computed(capsys, monkeypatch):
    monkeypatch.setattr(flow_map, "predict_flow_map", _fails)
    printed = _predicted(capsys, "A", "--objective=reverse_kl")
    assert list(printed["optima"]) == ["reverse_kl"]
    assert printed["without"] == {}


def test_what_has_no_optimum_is_named_with_the_reason_and_the_others_are_predicted(capsys, monkeypatch):
    monkeypatch.setattr(flow_map, "predict_flow_map", _fails)
    printed = _predicted(capsys, "A", "--objective=consistency_training", "--objective=reverse_kl")
    assert list(printed["optima"]) == ["reverse_kl"]
    assert printed["without"] == {"consistency_training": "leads on and on"}


@pytest.mark.parametrize("error", [TransportError, torch.linalg.LinAlgError])  # pyright: ignore[reportPrivateImportUsage]
def test_numbers_that_fail_leave_one_objective_without_an_optimum(monkeypatch, error):
    """Where it is built, and wherever it is asked for a value."""

    def failing(chain, frozen):
        raise error("no such\nmatrix")

    def unbuilt(data, precision):
        raise error("no such\nmatrix")

    def built(data, precision):
        return failing

    laboratory = Laboratory(PROCESSES["A"].law, "gaussian")
    for build in (unbuilt, built):
        monkeypatch.setitem(OBJECTIVES, "fisher", Objective(build))
        with pytest.raises(NoOptimumError, match=r"^(no such matrix|from no start)"):
            laboratory.predict("fisher")
    assert laboratory.predict("reverse_kl").best.value == pytest.approx(0.17603, abs=1e-4)


def test_an_optimum_that_is_lost_at_the_finest_precision_is_none(monkeypatch):
    """Its place depends on the precision here, farther than Newton's steps reach."""

    def build(data, precision):
        there = 3.0 if precision == FINE else 0.5
        return lambda chain, _: (chain.m1 - there) ** 2 + (chain.s1 - 1) ** 2

    monkeypatch.setitem(OBJECTIVES, "fisher", Objective(build))
    with pytest.raises(NoOptimumError, match=r"^the optimum at .* is lost at the finest precision"):
        Laboratory(PROCESSES["A"].law, "gaussian").predict("fisher")


def test_levels_of_every_frame_are_weighed_where_they_fit_into_memory():
    name = "reverse_kl_averaged_independent"
    fits = {"C": 2, "D": 2, "E": 4}
    for process, num_frames in fits.items():
        assert name in objectives_for(PROCESSES[process].law)
        assert PROCESSES[process].num_frames == num_frames
    longer = dataclasses.replace(PROCESSES["D"], num_frames=4).law
    assert name not in objectives_for(longer)
    assert "l2_elbo_diffusion_forcing" in objectives_for(longer)
    assert "l2_elbo_diffusion_forcing" not in objectives_for(dataclasses.replace(PROCESSES["D"], num_frames=7).law)


def _predicted(capsys, process, *arguments):
    assert main(["predict", "--process", process, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def _fails(*arguments, **settings):
    raise NoOptimumError("leads on and on")
