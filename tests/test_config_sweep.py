"""Every wrong parameter of the sweep is named with rule and value before anything starts."""

import pytest

from pipeline.config import parse_params
from pipeline.grid import Cell
from pipeline.schema import ConfigError
from tests.parameters import changed, raw


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("cells", [], r"sweep: cells must name at least one, got none"),
        (
            "cells",
            ["self_forcing-wgan"],
            r"sweep: cells must be of the grid, bidirectional-l2, .*, got 'self_forcing-wgan'",
        ),
        (
            "cells",
            ["self_forcing-l2"],
            r"sweep: cells must be ones that can be trained, got 'self_forcing-l2': l2 needs a target, and a frame "
            r"that self_forcing lets run free has none",
        ),
        ("cells", ["*-l2", "*-l2"], r"sweep: cells must name each once, got \*-l2 twice"),
        ("seeds", [], r"sweep: seeds must name at least one, got none"),
        ("seeds", [1, 1], r"sweep: seeds must name each once, got 1 twice"),
        ("seeds", [0, 1], r"sweep: tuning\.seed must be none of seeds, which are to be fresh, got 0"),
        ("seeds", [-1, 1], r"sweep: seeds\[0\] must be at least 0, got -1"),
        (
            "budget",
            {"name": "luck"},
            r"sweep\.budget\.name must be one of updates, clips, operations, seconds, got 'luck'",
        ),
        ("budget", {"name": "updates", "num_updates": 0}, r"sweep\.budget: num_updates must be at least 1, got 0"),
        ("budget", {"name": "operations", "tflop": 0.0}, r"sweep\.budget: tflop must be above 0, got 0"),
        ("budget", {"name": "seconds", "seconds": -1.0}, r"sweep\.budget: seconds must be above 0, got -1"),
        (
            "budget",
            {"name": "clips", "num_clips": 100},
            r"sweep\.budget: bidirectional x dmd: num_clips must be at least the clips of one step, 320: got 100",
        ),
        ("tuning.search", "grid", r"sweep\.tuning: search must be one of random, tpe, got 'grid'"),
        ("tuning.num_trials", 1, r"sweep\.tuning: num_trials must be at least 2, got 1"),
        (
            "tuning.learning_rate",
            [1e-3, 1e-4],
            r"sweep\.tuning: learning_rate must be a low and a high end, got 0\.001 and",
        ),
        (
            "tuning.learning_rate",
            [1e-4, 1e-3],
            r"sweep\.tuning: learning_rate must hold that of the parameters, 5e-05: got 0\.0001 to 0\.001",
        ),
        ("tuning.critic_rate_factor", [2.0, 3.0], r"sweep\.tuning: critic_rate_factor must hold 1, got"),
        (
            "tuning.critic_updates",
            [1, 2],
            r"sweep\.tuning: critic_updates must hold that of the parameters, 4: got 1, 2",
        ),
        ("num_clips", 3_000, r"sweep\.num_clips must be at most half of prepare\.num_test: 3000 and 2048"),
        ("max_failures", -1, r"sweep: max_failures must be at least 0, got -1"),
        (
            "checkpoint_every",
            7,
            r"sweep\.checkpoint_every must be a multiple of grid\.training\.report_every, 5: got 7",
        ),
        ("resources.num_cpus", 0, r"sweep\.resources: num_cpus must be at least 1, got 0"),
        ("resources.num_gpus", 1.5, r"sweep\.resources: num_gpus above 1 must be a whole number, got 1\.5"),
        (
            "resources.precision",
            "int8",
            r"sweep\.resources: precision must be one of float32, bfloat16, got 'int8'",
        ),
        (
            "resources.compile",
            True,
            r"sweep\.resources: num_gpus must be above 0 for precision float32, compile True",
        ),
        (
            "resources.num_workers",
            3,
            r"sweep\.resources\.num_workers must divide the clips of a batch .*, 64: got 3",
        ),
        ("storage", "", r"sweep: storage must be an fsspec address, got an empty one"),
        ("confidence", 1.0, r"sweep: confidence must be in \(0, 1\), got 1"),
        ("num_bootstraps", 10, r"sweep: num_bootstraps must be at least 100, got 10"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused(path, value, says):
    with pytest.raises(ConfigError, match=says):
        parse_params(changed(f"sweep.{path}", value))


def test_patterns_leave_out_what_is_excluded():
    params = parse_params(changed("sweep.cells", ["self_forcing-*", "bidirectional-l2"]))
    cells, excluded = params.sweep.selected(params.grid.methods, params.grid.losses)
    assert Cell("bidirectional", "l2") in cells
    assert {cell.method for cell in cells} == {"bidirectional", "self_forcing"}
    assert set(excluded) == {cell for cell in params.grid.cells() if cell.excluded}
    assert not set(cells) & set(excluded)


def test_the_default_sweep_is_that_of_the_published_table_and_its_bidirectional_row():
    params = parse_params(raw())
    cells, excluded = params.sweep.selected(params.grid.methods, params.grid.losses)
    methods, losses = (
        ("bidirectional", "teacher_forcing", "diffusion_forcing", "self_forcing"),
        ("l2", "dmd", "gan", "sid"),
    )
    assert {*cells, *excluded} == {Cell(method, loss) for method in methods for loss in losses}
    assert list(excluded) == [Cell("self_forcing", "l2")]
    assert len(params.sweep.seeds) == 3
