"""The command: JSON on stdout, one line and status 2 for what cannot be."""

import json

import pytest

from pipeline.laboratory.__main__ import main


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
        (["--process", "Z"], "process must be one of A, B, C, D, E, F, G, L, got 'Z'"),
        (["--process", "A", "--frames", "3"], "num_frames must be 1 for a mixture on the line, got 3"),
        (["--process", "A", "--student", "tied"], "num_frames must be at least 2, got 1"),
        (["--process", "A", "--pixels", "0"], "num_pixels must be at least 1, got 0"),
        (["--process", "A", "--objective", "kl"], "objective must be one of forward_kl"),
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
