"""What is claimed and what is derived of every cell of the laboratory."""

from dataclasses import replace

import pytest

from pipeline.config import parse_params
from pipeline.laboratory.derived import READINGS, claimed, derived, row_of_claims
from pipeline.laboratory.flow_map import PREDICTED
from pipeline.laboratory.optima import objectives_for
from pipeline.losses.add import Add
from pipeline.losses.pagoda import Pagoda
from tests.parameters import raw
from tests.processes import PROCESSES, STUDENT_OF

CELLS = parse_params(raw()).laboratory.cells


@pytest.mark.parametrize(
    ("cell", "table", "text"),
    [
        ("bidirectional-l2_flow", "forward_kl", "l2_flow_bidirectional"),
        ("bidirectional-l2_eps", "forward_kl", "forward_kl_averaged"),  # not monotone: no such expectation
        ("teacher_forcing-l2_elbo", "forward_kl", "l2_elbo_teacher_forcing"),
        ("diffusion_forcing-l2_elbo", "forward_kl", "forward_kl_averaged_independent"),
        ("self_forcing-dmd", "reverse_kl", "reverse_kl_averaged"),
        ("self_forcing-dmd_clean", "reverse_kl", None),
        ("self_forcing-gan_non_saturating", "jensen_shannon", "jensen_shannon_averaged"),
        ("diffusion_forcing_clean-dmd", "none", "none"),
        ("self_forcing-sid", None, None),
        ("teacher_forcing-dmd", None, None),
        ("bidirectional-gan_saturating", None, None),
    ],
)
def test_the_table_speaks_of_clean_clips_and_the_text_of_noised_ones(cell, table, text):
    entry = CELLS[cell]
    assert [claimed(entry.method, entry.loss, reading) for reading in READINGS] == [table, text]


def test_switches_that_decide_what_is_minimised_have_rows_of_their_own():
    rows = {name: row_of_claims(CELLS[name].method, CELLS[name].loss) for name in CELLS}
    assert rows["self_forcing-dmd"] == rows["self_forcing-dmd_clean"] == "self_forcing x dmd"
    assert rows["self_forcing_full-dmd"] == "self_forcing (gradient through the context) x dmd"
    assert rows["self_forcing-gan_saturating"] == "self_forcing x gan (saturating)"
    assert rows["diffusion_forcing-l2_flow"] == "diffusion_forcing x l2 (flow)"


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_derived_or_claimed_of_a_process_is_predicted_there(process):
    data = PROCESSES[process].law
    known = {*objectives_for(data), *PREDICTED.get(data.num_frames, {})}
    tied = STUDENT_OF[process] == "tied"
    for cell, entry in CELLS.items():
        if process in entry.processes:
            name = derived(entry.method, entry.loss, data.num_frames, tied=tied)
            # of four frames of which some are restored the predictions take minutes
            assert name in known or (cell, process, name) == ("diffusion_forcing_clean-dmd", "E", None)


def test_restored_data_have_a_prediction_where_its_frames_are_cleaned_as_it_assumes():
    entry = CELLS["diffusion_forcing_clean-dmd"]
    assert derived(entry.method, entry.loss, 2, tied=False) == "diffusion_forcing_reverse_kl_averaged"
    plain = CELLS["diffusion_forcing-l2_elbo"].method
    assert derived(plain, entry.loss, 2, tied=False) == "reverse_kl_averaged"


def test_losses_that_regress_a_flow_map_have_predictions_of_their_own():
    for name, expected in (
        ("consistency_training", "consistency_training"),
        ("consistency_distillation", "consistency_distillation"),
        ("mean_flow", "mean_flow"),
    ):
        entry = CELLS[f"bidirectional-{name}"]
        assert derived(entry.method, entry.loss, 1, tied=False) == expected
        assert derived(entry.method, entry.loss, 2, tied=False) is None


def test_losses_with_an_adversary_are_derived_at_the_weight_that_is_predicted():
    for name, objective, weight in (("bidirectional-add", "add", 0.4), ("bidirectional-pagoda", "pagoda", 3.0)):
        entry = CELLS[name]
        assert isinstance(entry.loss, Add | Pagoda)
        assert entry.loss.gan_weight == weight
        assert derived(entry.method, entry.loss, 1, tied=False) == objective
        heavier = replace(entry.loss, gan_weight=2 * weight)
        assert derived(entry.method, heavier, 1, tied=False) is None
