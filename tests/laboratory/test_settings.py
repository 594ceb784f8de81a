"""Processes and their students as parameters: a new one is taken as the others are, and a wrong one is named."""

import pytest

from pipeline.config import parse_params
from pipeline.laboratory.run import Key
from tests.parameters import raw, refusal

SWING = {
    "process": {"name": "line_mixture", "shares": [0.5, 0.5], "means": [-1.0, 1.0], "stds": [0.5, 0.5]},
    "student": "gaussian",
    "about": "two like modes",
}

MODE = {"mean": 0.0, "std": 0.5, "slope": 0.9, "shift": 0.0, "noise": 0.3}
MODES = {"name": "persistent_modes", "shares": [0.5, 0.5], "modes": [MODE, MODE]}


def with_setting(setting, *, name="swing", processes=("A",), cell_processes=("A",)):
    params = raw()
    params["laboratory"]["settings"][name] = setting
    params["laboratory"]["processes"] = list(processes)
    params["laboratory"]["cells"]["bidirectional-dmd"]["processes"] = list(cell_processes)
    params["laboratory"]["cells"]["bidirectional-dmd"]["learned"] = []
    return params


def test_a_process_of_the_parameters_is_measured_as_the_others_are():
    run = parse_params(with_setting(SWING, processes=("A", "swing"), cell_processes=("A", "swing"))).laboratory
    keys = [key for key in run.keys_of(0) if key.process == "swing"]
    assert keys == [Key("bidirectional-dmd", "swing", "exact", 0)]
    assert run.measure(keys[0]).process.law.means.flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            with_setting(SWING | {"process": SWING["process"] | {"shares": [0.5, 0.6]}}),
            "laboratory.settings.swing.process: shares must sum to 1, got (0.5, 0.6)",
        ),
        (
            with_setting(SWING | {"process": MODES | {"shares": [1.5, -0.5]}, "student": "tied"}),
            "laboratory.settings.swing.process: shares[1] must be above 0, got -0.5",
        ),
        (
            with_setting(SWING | {"student": "tied"}),
            "laboratory.settings.swing: num_frames must be at least 2, got 1",
        ),
        (
            with_setting(SWING | {"process": {"name": "brownian"}}),
            "laboratory.settings.swing.process.name must be one of",
        ),
        (
            with_setting(SWING, processes=("A", "sway")),
            "laboratory: processes must be one of A, B, C, D, E, F, G, H, L, swing, got 'sway'",
        ),
        (
            with_setting(SWING, cell_processes=("sway",)),
            "cells.bidirectional-dmd.processes must be one of A, B, C, D, E, F, G, H, L, swing, got 'sway'",
        ),
    ],
)
def test_a_wrong_process_is_refused_by_its_place(params, says):
    assert says in refusal(params)


def test_neural_students_need_several_frames():
    params = raw()
    params["laboratory"]["neural"]["process"] = "A"
    assert "neural.process must be one of several frames, got A" in refusal(params)
    params["laboratory"]["neural"]["process"] = "Z"
    assert "neural.process must be one of A, B" in refusal(params)


def test_students_that_make_frames_in_one_step_have_no_grid_of_levels():
    params = raw()
    levels = {"name": "independent", "num_levels": 4}
    params["laboratory"]["cells"]["diffusion_forcing_clean-dmd"]["method"]["noise_levels"] = levels
    assert "noise_levels.num_levels must be null under Dmd" in refusal(params)


@pytest.mark.parametrize("critics", ["exact", "learned"])
def test_a_cell_that_settles_late_takes_more_updates(critics):
    params = raw()
    params["laboratory"]["cells"]["bidirectional-dmd"]["update_factor"] = 2
    run = parse_params(params).laboratory
    plain = parse_params(raw()).laboratory.measure(Key("bidirectional-dmd", "A", critics, 0))
    assert run.measure(Key("bidirectional-dmd", "A", critics, 0)).training.num_steps == 2 * plain.training.num_steps
    params["laboratory"]["cells"]["bidirectional-dmd"]["update_factor"] = 0
    assert "laboratory.cells.bidirectional-dmd: update_factor must be at least 1, got 0" in refusal(params)
