"""PaGoDA: regression along the teacher's flow from its noisy end, and the adversary beside it."""

import pytest
import torch
from torch import nn

from pipeline.interfaces import Rollout
from pipeline.losses.gan import Gan
from pipeline.losses.pagoda import Pagoda, PagodaCritics
from pipeline.models.discriminator import Discriminator
from tests.closed_forms import SKEWED
from tests.losses.flow_ends import NEAREST, SCHEDULE, Exact, clips_of, linear_fit, made_by
from tests.losses.reach import tiny


class Even(Discriminator):
    """Cannot tell."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, x_t, t):
        return x_t.sum(dim=(1, 2, 3, 4)) * 0


def test_a_linear_student_is_the_nearest_gaussian_as_that_of_kd(rng):
    x = torch.linspace(-3, 7, 401, dtype=torch.float64)
    weights = SKEWED.log_density(x).exp()
    clips, counts = clips_of(x), (weights / weights.sum())[:, None]
    t = torch.ones_like(counts)
    critics = PagodaCritics.__new__(PagodaCritics)
    nn.Module.__init__(critics)
    critics.real, critics.adversary = Exact(), Even()

    def loss(mean, std):
        rollout = Rollout(clips, clips, t, counts, target=clips, denoise=lambda x_t, _: mean + std * x_t)
        return Pagoda(num_steps=100).student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng)

    assert linear_fit(loss) == pytest.approx(NEAREST, abs=2e-3)


def test_gradient_reaches_the_student_and_neither_teacher_nor_adversary(rng):
    loss, student, teacher = Pagoda(num_steps=3), tiny(1), tiny()
    critics = loss.critics(teacher)
    rollout, clips = made_by(student, rng)
    loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng).backward()
    assert all(p.grad is None for network in (teacher, critics) for p in network.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_the_adversary_alone_learns_from_the_critic_loss(rng):
    student, loss = tiny(1), Pagoda()
    critics = loss.critics(tiny())
    rollout, clips = made_by(student, rng)
    loss.critic_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng).backward()
    assert all(p.grad is None for network in (student, critics.real) for p in network.parameters())
    assert all(p.grad is not None for p in critics.adversary.parameters() if p.requires_grad)


def test_pagoda_restores_data_and_adds_its_adversary_with_a_weight(rng):
    student, teacher = tiny(1), tiny()
    values = []
    for weight in (0.0, 0.5, 1.0):
        loss, rng = Pagoda(num_steps=2, gan_weight=weight), torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        critics = loss.critics(teacher)
        rollout, clips = made_by(student, rng)
        values.append(loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng).item())
    assert values[1] - values[0] == pytest.approx((values[2] - values[0]) / 2, rel=1e-3)
    assert abs(values[1] - values[0]) > 1e-3


def test_pagoda_needs_data_to_take_up():
    assert Pagoda.needs_target
    assert Pagoda(gan=Gan(critic_updates=3)).critic_updates == 3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        ({"gan_weight": -1.0}, "gan_weight must be at least 0, got -1.0"),
    ],
)
def test_pagoda_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Pagoda(**fields)
