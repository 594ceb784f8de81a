"""Predictions: identities between parameterisations."""

import pytest
import torch

from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import FlowMatching, add_noise


@pytest.mark.parametrize("name", PREDICTIONS)
def test_x0_to_output_to_x0_is_the_identity(name, rng):
    x, eps = torch.randn(2, 2, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.rand(2, 3, generator=rng, dtype=torch.float64) * 0.9 + 0.05
    schedule = FlowMatching(shift=2.0)
    x_t, at = add_noise(schedule, x, eps, t), schedule.at(t)
    prediction = PREDICTIONS[name]
    assert torch.allclose(prediction.to_x0(prediction.from_x0(x, x_t, at), x_t, at), x, atol=1e-12)


def test_outputs_of_the_true_frame_are_the_noise_and_the_velocity(rng):
    x, eps = torch.randn(2, 2, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.full((2, 3), 0.3, dtype=torch.float64)
    x_t, at = add_noise(FlowMatching(), x, eps, t), FlowMatching().at(t)
    assert torch.allclose(PREDICTIONS["eps"].from_x0(x, x_t, at), eps, atol=1e-12)
    assert torch.allclose(PREDICTIONS["flow_velocity"].from_x0(x, x_t, at), eps - x, atol=1e-12)
