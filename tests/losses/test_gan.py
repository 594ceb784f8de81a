"""The adversarial losses against their divergences in closed form."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout, whole_clips
from pipeline.losses.gan import OBJECTIVES, Gan
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator
from tests.closed_forms import SKEWED, gaussian, gradient, kl, kl_of_middle
from tests.losses.line import MEAN, STD, trapezoids


def normal_log(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


GRID = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
STEP = GRID[1] - GRID[0]


def integral(values):
    return (values.sum() * STEP).item()


@pytest.mark.parametrize("objective", ["saturating", "non_saturating"])
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


def test_the_relativistic_objective_descends_reverse_kl_less_a_divergence_of_pairs():
    """KL(p || q) - JSD(p x q, q x p), at the best critic, whose logit is ln q/p as without pairs."""
    z, weights = trapezoids(reach=9.0, num_nodes=361)
    coarse = torch.linspace(-9, 11, 401, dtype=torch.float64)  # trapezoids are exact to 1e-12 for sd >= .5
    data = torch.exp(SKEWED.log_density(coarse)) * 0.05

    def logit(x, mean, std):
        return SKEWED.log_density(x) - gaussian(mean, std).log_density(x)

    def of_pairs(mean, std):  # log 2 + E log sigmoid(C(x) - C(y)), x ~ q, y ~ p
        student = torch.exp(gaussian(mean, std).log_density(coarse)) * 0.05
        at = logit(coarse, mean, std)
        return math.log(2) + (data[:, None] * student * F.logsigmoid(at[:, None] - at)).sum()

    expected = gradient(lambda mean, std: kl(gaussian(mean, std), SKEWED) - of_pairs(mean, std), MEAN, STD)
    x = (MEAN + STD * z).requires_grad_(True)
    margin = logit(x, MEAN, STD)[:, None] - logit(coarse, MEAN, STD)
    value = (weights[:, None] * data * OBJECTIVES["relativistic"](margin)).sum()
    (slope,) = torch.autograd.grad(value, x)
    assert (slope.sum().item(), (slope * z).sum().item()) == pytest.approx(expected, abs=1e-6)
    plain = gradient(lambda mean, std: 2 * kl_of_middle(gaussian(mean, std), SKEWED), MEAN, STD)
    assert abs(expected[0] - plain[0]) > 1e-3  # it is not the non-saturating one


class Told(Discriminator):
    """Answers with what it is told."""

    def __init__(self, logits):
        nn.Module.__init__(self)
        self.logits = list(logits)

    def forward(self, x_t, t):
        return self.logits.pop(0)


def test_relativistic_losses_are_those_of_self_forcing(rng):
    """guandeh17/Self-Forcing model/gan.py, on two logits of data and two of the student."""
    real, fake, loss = torch.tensor([0.4, -1.2]), torch.tensor([-0.3, 0.9]), Gan(objective="relativistic")
    rollout = rollout_of(torch.zeros(2, 3, 1, 2, 2))
    critic = loss.critic_loss(rollout, rollout.x0_hat, Told([real, fake]), schedule=FlowMatching(), rng=rng)
    student = loss.student_loss(rollout, rollout.x0_hat, Told([fake, real]), schedule=FlowMatching(), rng=rng)
    assert critic.item() == pytest.approx(1.30935276, abs=1e-6)
    assert student.item() == pytest.approx(0.609352767, abs=1e-6)


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


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_reaches_the_students_frames_and_not_through_data(objective, rng):
    loss, critics = Gan(objective=objective, r1_weight=0.1, r2_weight=0.1), Gan().critics(tiny())
    clips = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    x0_hat = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    torch.nn.init.normal_(critics.backbone.modulation.weight, std=0.1)
    loss.student_loss(rollout_of(x0_hat), clips, critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad.abs().sum() > 0
    assert clips.grad is None
    assert all(p.grad is None for p in critics.parameters())
    x0_hat.grad = None
    loss.critic_loss(rollout_of(x0_hat), clips.detach(), critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad is None
    assert all(p.grad is not None for p in critics.parameters() if p.requires_grad)


def test_clips_are_judged_at_one_level_or_frames_at_levels_of_their_own(rng):
    x0 = torch.zeros(5, 4, 1, 1, 1)
    shared, independent = (Gan(score_level=law).levels(x0, rng) for law in ("shared", "independent"))
    assert shared.shape == independent.shape == (5, 4)
    assert (shared == shared[:, :1]).all()
    assert len(independent.unique()) == independent.numel()
    for t in (shared, independent):
        assert 0.02 <= t.min() < t.max() <= 0.98


def test_frozen_features_let_the_head_alone_learn_and_pass_the_gradient_on(rng):
    loss, critics = Gan(features="teacher_frozen"), Gan(features="teacher_frozen").critics(tiny())
    x0_hat = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    torch.nn.init.normal_(critics.backbone.modulation.weight, std=0.1)
    assert {name.split(".")[0] for name, p in critics.named_parameters() if p.requires_grad} == {"head"}
    made = rollout_of(x0_hat)
    loss.critic_loss(made, x0_hat.detach(), critics, schedule=FlowMatching(), rng=rng).backward()
    assert all(p.grad is None for p in critics.backbone.parameters())
    assert all(p.grad is not None for p in critics.head.parameters())
    loss.student_loss(made, x0_hat.detach(), critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad.abs().sum() > 0


def test_each_slope_has_its_weight_and_its_noised_frames(rng):
    """The critic's own logits are alike at both: what is added is the weight times the slope there."""

    class Steep(Discriminator):
        """Of slope 2 at frames of data, 5 at the student's, which are 100 brighter."""

        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, x_t, t):
            x = x_t.flatten()
            return torch.where(x > 50 * (1 - t[:, 0]), 5.0, 2.0) * x

    def added(**weights):
        values = []
        for fields in ({}, weights):
            rng = torch.Generator().manual_seed(0)
            clips = torch.zeros(4000, 1, 1, 1, 1, dtype=torch.float64)
            loss = Gan(**fields)
            made = rollout_of(clips + 100)
            values.append(loss.critic_loss(made, clips, Steep(), schedule=FlowMatching(), rng=rng).item())
        return values[1] - values[0]

    assert added(r1_weight=0.5) == pytest.approx(0.5 * 4, rel=0.1)
    assert added(r2_weight=0.5) == pytest.approx(0.5 * 25, rel=0.1)


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
        ({"objective": "hinge"}, "objective must be one of saturating, non_saturating, relativistic, got 'hinge'"),
        ({"critic_updates": 0}, "critic_updates must be at least 1"),
        ({"r1_weight": -1.0}, "r1_weight must be at least 0"),
        ({"r2_weight": -1.0}, "r2_weight must be at least 0"),
        ({"slope_distance": 0.0}, "slope_distance must be above 0"),
        ({"features": "vgg"}, "features must be one of teacher_trained, teacher_frozen, got 'vgg'"),
    ],
)
def test_gan_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Gan(**fields)
