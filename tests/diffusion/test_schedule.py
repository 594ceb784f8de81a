"""Noise schedules."""

import pytest
import torch

from pipeline.diffusion.schedule import FlowMatching, add_noise


def test_flow_matching_ends_are_exactly_data_and_noise(rng):
    x, eps = torch.randn(2, 1, 3, 1, 2, 2, generator=rng)
    schedule = FlowMatching(shift=5.0)
    assert torch.equal(add_noise(schedule, x, eps, torch.zeros(1, 3)), x)
    assert torch.equal(add_noise(schedule, x, eps, torch.ones(1, 3)), eps)


def test_flow_matching_shift_gives_the_warped_steps_of_self_forcing():
    _, sigma = FlowMatching(shift=5.0).at(torch.tensor([[1.0, 0.75, 0.5, 0.25]]))
    assert torch.allclose(sigma.flatten(), torch.tensor([1.0, 0.9375, 0.8333333, 0.625]))


def test_flow_matching_shift_moves_log_snr_by_minus_2_ln_k():
    t = torch.linspace(0.1, 0.9, 9)[None]
    plain, shifted = FlowMatching().at(t), FlowMatching(shift=3.0).at(t)
    log_snr = [2 * (c.alpha.log() - c.sigma.log()) for c in (plain, shifted)]
    assert torch.allclose(log_snr[1], log_snr[0] - 2 * torch.log(torch.tensor(3.0)), atol=1e-5)


@pytest.mark.parametrize(
    ("t", "says"),
    [(torch.tensor([[1.5]]), "got values from 1.5 to 1.5"), (torch.tensor([[float("nan")]]), "must be in")],
)
def test_a_level_outside_the_range_is_refused(t, says):
    with pytest.raises(ValueError, match=says):
        FlowMatching().at(t)


def test_a_shift_of_nothing_is_refused():
    with pytest.raises(ValueError, match="shift must be above 0, got 0"):
        FlowMatching(shift=0.0)
