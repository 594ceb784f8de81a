"""Steps of a sampler."""

import pytest
import torch

from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.diffusion.trajectory import STEPS, ddim_step, renoise_step, step_levels


def test_step_levels_run_from_noise_to_the_last_before_clean():
    assert step_levels(4) == (1.0, 0.75, 0.5, 0.25)
    assert step_levels(4, 5.0) == pytest.approx((1.0, 0.9375, 0.8333333, 0.625))
    with pytest.raises(ValueError, match="shift must be above 0, got 0"):
        step_levels(4, 0.0)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        step_levels(0)


def test_ddim_on_the_straight_path_is_the_euler_step(rng):
    x_t, x0_hat = torch.randn(2, 2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
    t, t_next = torch.full((2, 3), 0.8).double(), torch.full((2, 3), 0.5).double()
    velocity = (x_t - x0_hat) / 0.8
    euler = x_t + (0.5 - 0.8) * velocity
    assert torch.allclose(ddim_step(FlowMatching(), x_t, x0_hat, t, t_next, rng), euler, atol=1e-7)


def test_ddim_with_the_true_frame_stays_on_its_path(rng):
    x, eps = torch.randn(2, 2, 3, 1, 2, 2, generator=rng)
    t, t_next = torch.full((2, 3), 0.9), torch.full((2, 3), 0.4)
    x_t = add_noise(FlowMatching(), x, eps, t)
    found = ddim_step(FlowMatching(), x_t, x, t, t_next, rng)
    assert torch.allclose(found, add_noise(FlowMatching(), x, eps, t_next), atol=1e-6)


def test_renoising_has_the_law_of_noised_frames(rng):
    x = torch.full((4_000, 1, 1, 2, 2), 2.0)
    t = torch.full((4_000, 1), 0.25)
    found = renoise_step(FlowMatching(), torch.zeros_like(x), x, t, t, rng)
    assert abs(found.mean() - 0.75 * 2) < 0.01
    assert abs(found.std() - 0.25) < 0.01
    assert set(STEPS) == {"renoise", "ddim"}
