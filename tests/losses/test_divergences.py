"""What the losses descend, on a process of known density: SKEWED data, a Gaussian student at (.2, .7)."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout
from pipeline.losses.gan import OBJECTIVES, Gan
from pipeline.losses.scores import dmd_gradient, pseudo_target_loss
from pipeline.models.discriminator import Discriminator
from tests.closed_forms import SKEWED, flow, gaussian, gradient, jsd, kl, kl_of_middle, noise_average, normal_nodes

MEAN, STD = 0.2, 0.7


class Told(Discriminator):
    """Answers with what it is told."""

    def __init__(self, logits):
        torch.nn.Module.__init__(self)
        self.logits = list(logits)

    def forward(self, x_t, t):
        return self.logits.pop(0)


def student_field(time_weight):
    """E_t E_z [time_weight (fake_x0 - real_x0) dx/d(mean, std)], with x = mean + std z and exact denoisers."""
    z, weights = normal_nodes(60)
    x = MEAN + STD * z
    student = gaussian(MEAN, STD)

    def at(t):
        alpha, sigma = 1 - t, t
        noisy = alpha * x[:, None] + sigma * z[None]
        fake, real = (law.denoiser(noisy, alpha, sigma) for law in (student, SKEWED))
        direction = time_weight(alpha, sigma) * (fake - real)
        pulls = (direction * weights[None]).sum(1)
        return torch.stack([(weights * pulls).sum(), (weights * pulls * z).sum()])

    return noise_average(lambda t: at(t)[0]).item(), noise_average(lambda t: at(t)[1]).item()


def test_the_score_difference_is_the_gradient_of_the_reverse_kl_averaged_over_noise():
    field = student_field(lambda alpha, sigma: alpha**2 / sigma**2)  # alpha (s_fake - s_real)

    def divergence(mean, std):
        return noise_average(lambda t: kl(flow(gaussian(mean, std), t), flow(SKEWED, t)))

    assert field == pytest.approx(gradient(divergence, MEAN, STD), abs=1e-5)
    assert field == pytest.approx((-0.0468865, -0.0130548), abs=1e-5)


def test_the_x0_difference_weighs_noise_levels_by_their_noise():
    field = student_field(lambda alpha, sigma: 1.0)  # noqa: ARG005

    def divergence(mean, std):
        return noise_average(lambda t: (t / (1 - t)) ** 2 * kl(flow(gaussian(mean, std), t), flow(SKEWED, t)))

    assert field == pytest.approx(gradient(divergence, MEAN, STD), abs=1e-5)


def test_the_normalised_gradient_is_that_of_self_forcing(rng):
    """Self-Forcing's grad / mean|x - real| a clip, and dL/dx = grad / numel, at any scale."""
    x, fake, real = torch.randn(3, 2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
    x.requires_grad_(True)
    found = dmd_gradient(fake, real, x.detach())
    for clip in range(2):
        expected = (fake[clip] - real[clip]) / (x[clip] - real[clip]).abs().mean()
        assert torch.allclose(found[clip], expected.detach(), rtol=1e-12)
    (slope,) = torch.autograd.grad(pseudo_target_loss(x, found), x)
    assert torch.allclose(slope, found / x.numel(), rtol=1e-9)
    assert torch.allclose(dmd_gradient(3 * fake, 3 * real, 3 * x.detach()), found, rtol=1e-12)


class TestGan:
    """The exact discriminator's logit is ln q - ln p."""

    def logit_at(self, x):
        return SKEWED.log_density(x) - gaussian(MEAN, STD).log_density(x)

    def student_gradient(self, objective):
        z, weights = normal_nodes(120)
        x = (MEAN + STD * z).requires_grad_(True)
        (slope,) = torch.autograd.grad((weights * OBJECTIVES[objective](self.logit_at(x))).sum(), x)
        return slope.sum().item(), (slope * z).sum().item()

    def test_the_value_at_the_best_discriminator_is_twice_jensen_shannon_less_ln_four(self):
        p = gaussian(MEAN, STD)
        value = SKEWED.mean_of(lambda x: -F.softplus(-self.logit_at(x))) + p.mean_of(
            lambda x: -F.softplus(self.logit_at(x))
        )
        assert value.item() == pytest.approx(2 * jsd(p, SKEWED).item() - math.log(4), abs=1e-9)
        assert value.item() == pytest.approx(-1.28119040, abs=1e-6)

    def test_the_saturating_objective_descends_jensen_shannon(self):
        expected = gradient(lambda mean, std: 2 * jsd(gaussian(mean, std), SKEWED), MEAN, STD)
        assert self.student_gradient("saturating") == pytest.approx(expected, abs=1e-6)

    def test_the_non_saturating_objective_descends_a_softened_reverse_kl(self):
        expected = gradient(lambda mean, std: 2 * kl_of_middle(gaussian(mean, std), SKEWED), MEAN, STD)
        assert self.student_gradient("non_saturating") == pytest.approx(expected, abs=1e-6)

    def test_losses_are_those_of_self_forcing(self, rng):
        """guandeh17/Self-Forcing model/gan.py, on two logits of data and two of the student."""
        real, fake = torch.tensor([0.4, -1.2]), torch.tensor([-0.3, 0.9])
        frames, t = torch.zeros(2, 3, 1, 2, 2), torch.ones(2, 3)
        rollout = Rollout(x0_hat=frames, x_t=frames, t=t, counts=t, target=None, denoise=lambda x, _: x)
        critic = Gan().critic_loss(rollout, frames, Told([real, fake]), schedule=FlowMatching(), rng=rng)
        assert critic.item() == pytest.approx(1.88590336, abs=1e-6)
        assert OBJECTIVES["non_saturating"](fake).mean().item() == pytest.approx(0.597754598, abs=1e-6)
        assert OBJECTIVES["saturating"](fake).mean().item() == pytest.approx(-0.89775455, abs=1e-6)
