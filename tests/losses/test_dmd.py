"""DMD: its gradient, exactly; with exact scores of Gaussians, the analytic one."""

import pytest
import torch
from torch import nn

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout
from pipeline.losses.dmd import Dmd, Scores, dmd_gradient, pseudo_target_loss
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec


class GaussianDenoiser(nn.Module):
    """E[x_0 | x_t] of data N(mean, std^2), every value by itself: m + a s^2 (x_t - a m) / (a^2 s^2 + sigma^2)."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.variance = mean, std**2

    def forward(self, x_t, t):
        alpha, sigma = FlowMatching().at(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)


def rollout_of(x0_hat):
    t = torch.ones(x0_hat.shape[:2])
    return Rollout(x0_hat=x0_hat, x_t=x0_hat, t=t, counts=t, target=None, denoise=lambda x, _: x)


class ExactScores(Scores):
    """Both scores in closed form."""

    def __init__(self, fake, real):
        nn.Module.__init__(self)
        self.fake, self.real = fake, real


def test_the_pseudo_target_gives_its_gradient_exactly(rng):
    x = torch.randn(2, 3, 1, 4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    (found,) = torch.autograd.grad(pseudo_target_loss(x, gradient), x)
    assert torch.allclose(found, gradient / x.numel(), rtol=1e-12, atol=1e-15)


def test_dmd_gradient_vanishes_when_fake_equals_real(rng):
    x, score = torch.randn(2, 2, 3, 1, 4, 4, generator=rng)
    assert dmd_gradient(score, score, x).abs().max() == 0


def test_dmd_gradient_does_not_depend_on_the_scale_of_the_frames(rng):
    fake, real, x = torch.randn(3, 2, 3, 1, 4, 4, generator=rng)
    assert torch.allclose(dmd_gradient(7 * fake, 7 * real, 7 * x), dmd_gradient(fake, real, x), rtol=1e-5)


def test_with_exact_scores_of_gaussians_the_gradient_is_the_analytic_one():
    """Student N(m, s^2), data N(mu, v^2): the student's and the data's denoisers at z = a x + sigma eps differ by
    (a s^2/(a^2 s^2 + sigma^2)) (z - a m) + m - (a v^2/(a^2 v^2 + sigma^2)) (z - a mu) - mu,
    whose mean over the student is (m - mu) sigma^2 / (a^2 v^2 + sigma^2): zero only where the means agree."""
    mean, std, data_mean, data_std, level = 0.7, 0.5, -0.3, 1.2, 0.4
    loss = Dmd(level_min=level, level_max=level + 1e-6)
    generator = torch.Generator().manual_seed(1)
    x0_hat = mean + std * torch.randn(4_000, 1, 1, 8, 8, generator=generator)
    x0_hat.requires_grad_(True)
    critics = ExactScores(GaussianDenoiser(mean, std), GaussianDenoiser(data_mean, data_std))
    value = loss.student_loss(rollout_of(x0_hat), x0_hat, critics, schedule=FlowMatching(), rng=generator)
    (found,) = torch.autograd.grad(value, x0_hat)
    alpha, sigma = 1 - level, level
    shift = (mean - data_mean) * sigma**2 / (alpha**2 * data_std**2 + sigma**2)
    # the normaliser: mean |x - D_real(z)| of a Gaussian with this mean and variance
    gain = alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2)
    offset = mean - data_mean - gain * alpha * (mean - data_mean)
    spread = ((1 - gain * alpha) ** 2 * std**2 + (gain * sigma) ** 2) ** 0.5
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = torch.tensor(offset / spread)
    scale = spread * (2 * normal.log_prob(ratio).exp() + ratio * (2 * normal.cdf(ratio) - 1))
    assert found.sum().item() == pytest.approx((shift / scale).item(), rel=0.02)


def test_gradient_reaches_the_student_alone_and_the_critic_alone(rng):
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=1, num_heads=2)
    teacher = Denoiser(DenoiserSpec(spec))
    critics = Dmd().critics(teacher)
    assert isinstance(critics, Scores)
    x0_hat = torch.randn(4, 3, 1, 4, 4, generator=rng, requires_grad=True)
    loss, made = Dmd(), rollout_of(x0_hat)
    loss.student_loss(made, x0_hat, critics, schedule=FlowMatching(), rng=rng).backward()
    assert all(p.grad is None for p in critics.parameters())
    x0_hat.grad = None
    loss.critic_loss(made, x0_hat, critics, schedule=FlowMatching(), rng=rng).backward()
    assert x0_hat.grad is None
    assert all(p.grad is None for p in critics.real.parameters())
    assert sum(p.grad.abs().sum() for p in critics.fake.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"score_level": "each"}, "score_level must be one of shared, independent, got 'each'"),
        ({"level_min": 0.9, "level_max": 0.1}, "0 < level_min < level_max < 1 must hold, got 0.9 and 0.1"),
    ],
)
def test_dmd_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Dmd(**fields)
