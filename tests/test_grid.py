"""The grid."""

import subprocess
import sys

from pipeline.grid import PAPERS, Cell, cells, derived_divergence, table
from pipeline.losses import LOSSES
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.methods import METHODS
from pipeline.methods.self_forcing import SelfForcing


def test_the_grid_is_the_whole_product():
    assert {("diffusion_forcing", "l2"), ("self_forcing", "gan"), ("teacher_forcing", "dmd")} <= set(cells())
    assert len(list(cells())) == len(set(cells())) == len(METHODS) * len(LOSSES)


def test_a_cell_is_excluded_where_a_free_frame_would_need_a_target_and_nowhere_else():
    assert "needs a target" in Cell("self_forcing", "l2").excluded
    needing = {name for name, loss in LOSSES.items() if loss.needs_target}
    assert {"l2", "consistency_training"} <= needing
    assert {cell for cell in cells() if cell.excluded} == {Cell("self_forcing", name) for name in needing}


def test_a_cell_names_its_paper_and_its_divergence():
    assert "2412.07772" in Cell("diffusion_forcing", "dmd").paper
    assert Cell("diffusion_forcing", "gan").paper is None
    assert Cell("self_forcing", "dmd").divergence.startswith("reverse KL")


def test_every_paper_is_that_of_a_cell_that_runs():
    assert {Cell(*names) for names in PAPERS} <= {cell for cell in cells() if not cell.excluded}


def test_a_cell_is_found_from_its_method_and_loss():
    assert {Cell.of(METHODS[cell.method](), LOSSES[cell.loss]()) for cell in cells()} == set(cells())


def test_a_cell_says_which_attention_and_which_teacher_it_takes():
    assert {name: Cell(name, "dmd").attention for name in METHODS} == {
        "bidirectional": "full",
        "teacher_forcing": "causal",
        "diffusion_forcing": "causal",
        "self_forcing": "causal",
    }
    assert Cell("teacher_forcing", "dmd").teacher == "causal"
    assert Cell("self_forcing", "dmd").teacher == "bidirectional"
    assert Cell("self_forcing", "l2").teacher is None


def test_a_causal_student_follows_the_flow_of_a_causal_teacher_and_a_full_one_that_of_its_own_kind():
    following = {name for name, loss in LOSSES.items() if loss.follows_flow}
    assert following == {"kd", "consistency_distillation", "pagoda"}
    for cell in cells():
        if cell.loss in following:
            assert cell.teacher == {"causal": "causal", "full": "bidirectional"}[cell.attention]


def test_the_divergence_is_composed_of_what_the_loss_measures_and_the_method_shows_it():
    derived = {tuple(cell): cell.derived for cell in cells()}
    assert derived["self_forcing", "l2"] is None
    assert derived["bidirectional", "l2"].startswith("forward KL of whole clips")
    assert derived["teacher_forcing", "l2"].startswith("forward KL of each frame given the clean ones before it")
    assert derived["diffusion_forcing", "l2"].startswith("forward KL of each frame given the noised ones before it")
    assert "of true contexts, each followed by" in derived["teacher_forcing", "dmd"]
    assert "push-forward of data" in derived["diffusion_forcing", "gan"]
    assert not any("{" in sentence for sentence in derived.values() if sentence)


def test_parameters_decide_the_divergence_where_they_change_it():
    detached, whole = (derived_divergence(SelfForcing(detach_context=d), Dmd()) for d in (True, False))
    assert whole == "reverse KL, averaged over noise, of clips that the student samples"
    assert "moves the fixed point" in detached
    saturating = derived_divergence(SelfForcing(detach_context=False), Gan(objective="saturating"))
    assert saturating.startswith("Jensen-Shannon divergence")


def test_the_likelihood_is_undefined_but_for_denoisers_and_the_cell_says_why():
    reasons = {tuple(cell): cell.likelihood_undefined for cell in cells()}
    defined = {cell for cell, reason in reasons.items() if reason is None}
    assert defined == {(method, "l2") for method in METHODS if METHODS[method].provides_target}
    assert "dmd trains the frames that a few steps make, and no longer a denoiser" in reasons["self_forcing", "dmd"]
    assert reasons["diffusion_forcing", "gan"].startswith("gan trains")
    assert reasons["self_forcing", "l2"] == Cell("self_forcing", "l2").excluded


def test_the_table_has_a_row_a_cell_and_says_why_one_is_missing():
    printed = subprocess.run([sys.executable, "-m", "pipeline.grid"], capture_output=True, text=True, check=True)
    assert printed.stdout == table()
    head, _, *rows = printed.stdout.splitlines()
    assert [tuple(row.split(" | ")[:2]) for row in rows] == [(f"| {cell.method}", cell.loss) for cell in cells()]
    assert {row.count(" | ") for row in (head, *rows)} == {5}
    assert sum(row.endswith("| yes |") for row in rows) == sum(cell.excluded is None for cell in cells())
    assert "| no: l2 needs a target, and a frame that self_forcing lets run free has none |" in printed.stdout
