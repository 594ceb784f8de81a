"""KD: regression on the ends of the teacher's flow."""

import math

import pytest
import torch

from pipeline.interfaces import Rollout
from pipeline.losses.kd import Kd, regression
from tests.losses.flow_ends import NEAREST, SCHEDULE, Exact, clips_of, linear_fit, made_by
from tests.losses.line import trapezoids
from tests.losses.reach import tiny


def test_a_linear_student_of_kd_is_the_nearest_gaussian(rng):
    """On the line the flow carries quantiles to quantiles: mean and E[z Q(Phi(z))]."""
    z, weights = trapezoids(reach=6.0, num_nodes=201)
    x_t, counts = clips_of(z), weights[:, None]
    t = torch.ones_like(counts)

    def loss(mean, std):
        rollout = Rollout(mean + std * x_t, x_t, t, counts, target=None, denoise=lambda x, _: x)
        return Kd(num_steps=100).student_loss(rollout, x_t, Exact(), schedule=SCHEDULE, rng=rng)

    assert linear_fit(loss) == pytest.approx(NEAREST, abs=1e-3)


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
