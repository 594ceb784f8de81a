"""The published orders name cells of the grid, and say what the paper says of them."""

import pytest

from pipeline.grid import cells
from pipeline.sweep.published import PUBLISHED


@pytest.mark.parametrize("order", PUBLISHED)
def test_published_orders_name_cells_that_can_be_trained(order):
    assert set(PUBLISHED[order]) <= {"-".join(cell) for cell in cells() if cell.excluded is None}


@pytest.mark.parametrize("order", PUBLISHED)
def test_published_self_forcing_stands_above_the_rest_and_dmd_first(order):
    by_score = sorted(PUBLISHED[order], key=PUBLISHED[order].__getitem__, reverse=True)
    assert by_score[:3] == ["self_forcing-dmd", "self_forcing-sid", "self_forcing-gan"]


def test_published_dmd_turns_the_order_of_teacher_and_diffusion_forcing_around_frame_by_frame():
    scores = PUBLISHED["frame_wise"]
    assert scores["teacher_forcing-l2"] > scores["diffusion_forcing-l2"]
    assert scores["teacher_forcing-dmd"] < scores["diffusion_forcing-dmd"]
