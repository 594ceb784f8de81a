"""The grid."""

from pipeline.grid import Cell, cells
from pipeline.losses import LOSSES
from pipeline.methods import METHODS


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


def test_a_cell_is_found_from_its_method_and_loss():
    assert {Cell.of(METHODS[cell.method](), LOSSES[cell.loss]()) for cell in cells()} == set(cells())


def test_the_likelihood_is_undefined_but_for_denoisers_and_the_cell_says_why():
    reasons = {cell: cell.likelihood_undefined for cell in cells()}
    assert [cell for cell, reason in reasons.items() if reason is None] == [Cell("diffusion_forcing", "l2")]
    assert "dmd trains the frames that a few steps make, and no longer a denoiser" in str(
        reasons[Cell("self_forcing", "dmd")]
    )
    assert str(reasons[Cell("diffusion_forcing", "gan")]).startswith("gan trains")
    assert reasons[Cell("self_forcing", "l2")] == Cell("self_forcing", "l2").excluded
