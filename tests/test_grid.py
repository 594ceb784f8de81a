"""The grid."""

from pipeline.grid import Cell, cells


def test_the_grid_is_the_whole_product():
    assert {("diffusion_forcing", "l2"), ("self_forcing", "gan")} <= set(cells())
    assert len(list(cells())) == len(set(cells()))


def test_self_forcing_with_l2_is_excluded_because_a_free_frame_has_no_target():
    assert "needs a target" in Cell("self_forcing", "l2").excluded
    assert [cell for cell in cells() if cell.excluded] == [Cell("self_forcing", "l2")]


def test_a_cell_names_its_paper_and_its_divergence():
    assert "2412.07772" in Cell("diffusion_forcing", "dmd").paper
    assert Cell("diffusion_forcing", "gan").paper is None
    assert Cell("self_forcing", "dmd").divergence.startswith("reverse KL")
