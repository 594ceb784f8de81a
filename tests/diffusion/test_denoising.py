"""The denoising loss."""

import pytest
import torch

from pipeline.diffusion.denoising import denoising_loss
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import FlowMatching, add_noise


@pytest.mark.parametrize("name", ["eps", "flow_velocity", "x0"])
def test_a_weighting_is_the_squared_error_of_its_prediction(name, rng):
    x, eps, error = torch.randn(3, 4, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.rand(4, 3, generator=rng, dtype=torch.float64) * 0.9 + 0.05
    schedule = FlowMatching()
    x_t, at = add_noise(schedule, x, eps, t), schedule.at(t)
    x0_hat = x + 0.1 * error
    outputs = [PREDICTIONS[name].from_x0(clean, x_t, at) for clean in (x, x0_hat)]
    expected = (outputs[0] - outputs[1]).square().mean()
    found = denoising_loss(x0_hat, x, t, schedule=schedule, weighting=name)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_clean_frames_carry_no_loss(rng):
    x = torch.randn(2, 4, 1, 2, 2, generator=rng)
    t = torch.tensor([[0.0, 0.5, 0.0, 1.0]]).expand(2, 4).contiguous()
    x0_hat = x.clone()
    x0_hat[:, [0, 2]] += 10.0
    assert denoising_loss(x0_hat, x, t, schedule=FlowMatching(), weighting="flow_velocity") == 0
    x0_hat[:, 3] += 1.0  # one of two noisy frames is wrong by 1, at weight 1
    assert denoising_loss(x0_hat, x, t, schedule=FlowMatching(), weighting="flow_velocity").item() == 0.5


def test_the_first_frame_counts_as_often_as_it_is_told(rng):
    x = torch.zeros(1, 3, 1, 2, 2)
    t = torch.tensor([[1.0, 1.0, 0.0]])
    x0_hat = x.clone()
    x0_hat[:, 0] += 1.0  # squared error 1 at weight 1 in the first frame, 0 in the second
    arguments = {"schedule": FlowMatching(), "weighting": "x0"}
    assert denoising_loss(x0_hat, x, t, **arguments).item() == pytest.approx(1 / 2)
    assert denoising_loss(x0_hat, x, t, first_weight=3.0, **arguments).item() == pytest.approx(3 / 4)
