"""Consistency losses of openai/consistency_models from our levels, steps and predictions, on its own inputs.

Its discretisation is EDM's 18 sigmas; its CT target comes by an Euler step with the known frame, its CD target by a
Heun step of the teacher; the student meets the boundary f(x, sigma_min) = x.
"""

import math

import pytest
import torch

from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import EdmSampling, add_noise
from pipeline.diffusion.trajectory import Euler, Heun

SCHEDULE = EdmSampling(family="variance_exploding")
SIGMA_MIN, SIGMA_DATA = 0.002, 0.5
INDICES = torch.tensor([0.0, 8.0, 16.0], dtype=torch.float64)
NEARLY_CLEAN = 1e-13  # of t: its sigma is sigma_min, while t = 0 is clean


def det(frequency):
    """sin(frequency (i + 1)), three clips of one frame."""
    return torch.sin(frequency * torch.arange(1, 13, dtype=torch.float64)).reshape(3, 1, 1, 2, 2)


def level(index):
    """Of the 18 sigmas, (3, 1)."""
    return (1 - index[:, None] / 17).clamp_min(NEARLY_CLEAN)


def network(gain, drift):
    """Stands in for a network of (c_in x_t, 250 ln sigma)."""
    return lambda x, sigma: gain * torch.tanh(x) + drift * 250 * sigma.log()


def output(network, x_t, t):
    sigma = SCHEDULE.at(t).sigma
    return network(x_t / (sigma**2 + SIGMA_DATA**2).sqrt(), sigma), sigma


def consistency_function(network):
    """EDM's preconditioning moved to sigma_min, where it is the identity. arXiv:2303.01469, appendix C."""

    def denoise(x_t, t):
        out, sigma = output(network, x_t, t)
        c_skip = SIGMA_DATA**2 / ((sigma - SIGMA_MIN) ** 2 + SIGMA_DATA**2)
        c_out = (sigma - SIGMA_MIN) * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()
        return c_out * out + c_skip * x_t

    return denoise


def teacher(x_t, t):
    out, _ = output(network(0.2, 0.0), x_t, t)
    return PREDICTIONS["edm"].to_x0(out, x_t, SCHEDULE.at(t), SIGMA_DATA)


def loss(step, denoise, rng):
    """Mean squared difference of student and target a clip, and sigma."""
    x0, noise = 0.5 * det(0.9), det(1.7)
    t, t_next = level(INDICES), level(INDICES + 1)
    x_t = add_noise(SCHEDULE, x0, noise, t)
    x_next = step(SCHEDULE, x_t, t, t_next, denoise or (lambda x_t, t: x0), rng)  # noqa: ARG005
    student, target = (consistency_function(network(gain, 0.001)) for gain in (0.4, 0.3))
    error = (student(x_t, t) - target(x_next, t_next)).square().mean((1, 2, 3, 4))
    return error, SCHEDULE.at(t).sigma.flatten()


def test_consistency_training_follows_the_known_frame_by_an_euler_step(rng):
    error, sigma = loss(Euler(), None, rng)
    assert sigma.tolist() == pytest.approx([80.0, 3.25682152, 0.00752801996], rel=1e-6)
    assert error.tolist() == pytest.approx([0.00273365877, 0.00545491511, 5.39474822e-05], abs=2e-8)
    karras = error * (sigma**-2 + SIGMA_DATA**-2)
    assert karras.tolist() == pytest.approx([0.0109350625, 0.0223339405, 0.952156544], rel=1e-5)


def test_consistency_distillation_follows_the_teacher_by_a_heun_step(rng):
    error, _ = loss(Heun(), teacher, rng)
    assert error.tolist() == pytest.approx([0.00273811468, 0.00437793368, 4.62539901e-05], abs=2e-8)
    euler, _ = loss(Euler(), teacher, rng)
    assert abs(euler[1] - error[1]) > 1e-5  # so the order of the solver is seen


def test_the_boundary_is_the_identity(rng):
    x = torch.randn(3, 1, 1, 2, 2, generator=rng, dtype=torch.float64)
    t = torch.full((3, 1), NEARLY_CLEAN, dtype=torch.float64)
    found = consistency_function(network(5.0, math.pi))(x, t)
    assert torch.allclose(found, x, atol=1e-9)
