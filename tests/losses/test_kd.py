"""KD: regression on the ends of the teacher's flow."""

import math

import pytest
import torch
from torch import nn

from pipeline.interfaces import Rollout
from pipeline.losses.kd import Kd, regression
from pipeline.models.denoiser import Denoiser
from tests.losses.flow_ends import NEAREST, SCHEDULE, Exact, clips_of, linear_fit, made_by
from tests.losses.line import trapezoids
from tests.losses.reach import tiny

RHO = 0.8  # correlation of two successive frames of data


def test_a_linear_student_of_kd_is_the_nearest_gaussian(rng):
    """On the line the flow carries quantiles to quantiles: mean and E[z Q(Phi(z))]."""
    z, weights = trapezoids(reach=6.0, num_nodes=201)
    x_t, counts = clips_of(z), weights[:, None]
    t = torch.ones_like(counts)

    def loss(mean, std):
        rollout = Rollout(mean + std * x_t, x_t, t, counts, target=None, denoise=lambda x, _: x)
        return Kd(num_steps=100).student_loss(rollout, x_t, Exact(), schedule=SCHEDULE, rng=rng)

    assert linear_fit(loss) == pytest.approx(NEAREST, abs=1e-3)


class TwoFrames(Denoiser):
    """E[x_0 | x_t] of two Gaussian frames of variance 1 and correlation RHO; causal: frame 1 sees itself alone."""

    def __init__(self, causal):
        nn.Module.__init__(self)
        self.causal = causal

    def forward(self, x_t, t, end=None):
        alpha, sigma = (c[0, 0].item() for c in SCHEDULE.at(t))
        covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        if self.causal:
            gain[0] = torch.tensor([alpha / (alpha**2 + sigma**2), 0.0])
        return (x_t.flatten(1) @ gain.T).reshape(x_t.shape)


@pytest.mark.parametrize(("causal", "left"), [(False, 0.2), (True, 0.0)])
def test_a_causal_student_can_follow_a_causal_teacher_alone(causal, left, rng):
    """The joint flow from noise z ends at C^(1/2) z, in which frame 1 depends on the noise of frame 2 by sqrt(.2).

    `left`: the variance that the best causal student, (a z_1, b z_1 + c z_2), leaves of both frames together.
    """
    z = 2**0.5 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    x_t, t = z[..., None, None, None], torch.ones_like(z)

    def loss(weights):
        a, b, c = weights
        x0_hat = torch.stack([a * z[:, 0], b * z[:, 0] + c * z[:, 1]], 1)[..., None, None, None]
        rollout = Rollout(x0_hat, x_t, t, t, target=None, denoise=lambda x, _: x)
        return Kd(num_steps=60).student_loss(rollout, x_t, TwoFrames(causal), schedule=SCHEDULE, rng=rng)

    start = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(loss(start), start)[0]
    best = -torch.linalg.solve(torch.autograd.functional.hessian(loss, start), slope)
    assert 2 * loss(best).item() == pytest.approx(left, abs=1e-3)


def test_the_regression_counts_frames_as_often_as_they_are_said_to(rng):
    x, y = torch.randn(2, 2, 3, 1, 4, 4, generator=rng)
    counts = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    y[0, 0] = math.nan  # what is context may be anything
    error = (x - y).square().mean(dim=(2, 3, 4))
    assert regression(x, y, counts).item() == pytest.approx(((error[0, 1] + 3 * error[0, 2]) / 4).item())


def test_gradient_reaches_the_student_and_not_its_teacher(rng):
    loss, student, teacher = Kd(num_steps=3), tiny(1), tiny()
    critics = loss.critics(teacher)
    rollout, clips = made_by(student, rng)
    loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng).backward()
    assert all(p.grad is None for network in (teacher, critics) for p in network.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_kd_needs_no_data():
    assert not Kd.needs_target
    assert Kd.needs_teacher


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
    ],
)
def test_kd_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Kd(**fields)
