"""No cell changes what it does unnoticed: three steps of each are those that are written down."""

import json

import pytest

from pipeline.grid import cells
from tests.golden.three_steps import GOLDEN, NUM_STEPS, three_steps

CELLS = [cell for cell in cells() if not cell.excluded]


def test_every_cell_that_runs_is_written_down_and_no_other():
    assert list(json.loads(GOLDEN.read_text())) == ["-".join(cell) for cell in CELLS]


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_three_steps_of_a_cell_are_those_written_down(cell):
    golden, found = json.loads(GOLDEN.read_text())["-".join(cell)], three_steps(cell)
    assert list(found) == list(golden)
    for name, values in golden.items():
        assert len(values) == NUM_STEPS
        assert found[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
