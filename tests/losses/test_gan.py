"""The adversarial losses against their divergences in closed form."""

import math

import pytest
import torch
from torch import nn

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout, whole_clips
from pipeline.losses.gan import OBJECTIVES, Gan
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator


def normal_log(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


GRID = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
STEP = GRID[1] - GRID[0]


def integral(values):
    return (values.sum() * STEP).item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_descends_its_divergence(objective):
    """At the optimal discriminator log q/p, d/dm E_p[objective] at fixed logit equals d/dm of the divergence."""
    data, std = (0.0, 1.0), 0.7

    def densities(mean):
        q, p = (normal_log(GRID, *law).exp() for law in (data, (mean, std)))
        return q, p, 0.5 * (q + p)

    def divergence(mean):
        q, p, mixture = densities(mean)
        if objective == "saturating":  # 2 JSD
            return integral(p * (p / mixture).log()) + integral(q * (q / mixture).log())
        return 2 * integral(mixture * (mixture / q).log())

    mean, h = 0.4, 1e-4
    expected = (divergence(mean + h) - divergence(mean - h)) / (2 * h)
    logit = normal_log(GRID, *data) - normal_log(GRID, mean, std)
    values = OBJECTIVES[objective](logit)
    found = (integral(densities(mean + h)[1] * values) - integral(densities(mean - h)[1] * values)) / (2 * h)
    assert found == pytest.approx(expected, rel=1e-5)


def tiny():
    torch.manual_seed(0)
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=1, num_heads=2, attention="full")
    return Denoiser(DenoiserSpec(spec))


def rollout_of(x0_hat):
    t = torch.ones(x0_hat.shape[:2])
    return Rollout(x0_hat=x0_hat, x_t=x0_hat, t=t, counts=t, target=None, denoise=lambda x, _: x)


def test_the_critic_learns_to_tell_shifted_frames_from_data(rng):
    loss, critics = Gan(), Gan().critics(tiny())
    optimizer = torch.optim.Adam([p for p in critics.parameters() if p.requires_grad], 3e-3)
    values = []
    for _ in range(60):
        clips = torch.randn(64, 3, 1, 4, 4, generator=rng)
        value = loss.critic_loss(rollout_of(clips + 1.5), clips, critics, schedule=FlowMatching(), rng=rng)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[0] == pytest.approx(2 * math.log(2), abs=0.1)  # it starts by knowing nothing
    assert sum(values[-10:]) / 10 < 0.9


def test_gradient_reaches_the_students_frames_and_not_through_data(rng):
    loss, critics = Gan(r1_weight=0.1), Gan().critics(tiny())
    clips = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    x0_hat = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    torch.nn.init.normal_(critics.backbone.modulation.weight, std=0.1)
    loss.student_loss(rollout_of(x0_hat), clips, critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad.abs().sum() > 0
    assert clips.grad is None
    x0_hat.grad = None
    loss.critic_loss(rollout_of(x0_hat), clips.detach(), critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad is None


def test_the_slope_is_that_of_a_linear_critic(rng):
    class Linear(Discriminator):
        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, x_t, t):
            return 3.0 * x_t.sum(dim=(1, 2, 3, 4))

    x, t = torch.zeros(20_000, 1, 1, 2, 2), torch.full((20_000, 1), 0.5)
    found = Gan().slope(whole_clips, Linear(), x, t, torch.zeros(20_000), rng)
    assert found.item() == pytest.approx(9.0 * 4, rel=0.03)  # E (3 sum of 4 unit normals)^2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"objective": "hinge"}, "objective must be one of saturating, non_saturating, got 'hinge'"),
        ({"critic_updates": 0}, "critic_updates must be at least 1"),
        ({"r1_weight": -1.0}, "r1_weight must be at least 0"),
    ],
)
def test_gan_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Gan(**fields)
