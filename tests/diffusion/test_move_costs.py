"""What one move down from a noise level costs."""

import pytest
import torch

from pipeline.diffusion.likelihood import normal_kl, transition_weights


def test_transition_weight_is_the_kl_of_the_two_posteriors():
    """Of one value, means and variance written out. arXiv:2107.00630, appendix A.2."""
    log_snr = torch.tensor([4.0, 1.5, -2.0], dtype=torch.float64)
    alpha, variance = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
    x0, x0_hat, z = 0.7, 0.3, 0.2
    for k in (1, 2):
        ratio = alpha[k] / alpha[k - 1]
        step = variance[k] - ratio**2 * variance[k - 1]
        means = [
            ratio * variance[k - 1] / variance[k] * z + alpha[k - 1] * step / variance[k] * x for x in (x0, x0_hat)
        ]
        posterior_variance = step * variance[k - 1] / variance[k]
        kl = normal_kl(means[0], posterior_variance, means[1], posterior_variance)
        error = (x0 - x0_hat) ** 2
        assert transition_weights(log_snr)[k] * error == pytest.approx(kl.item(), rel=1e-12)
        eps_error = error * log_snr[k].exp()
        assert torch.expm1(log_snr[k - 1] - log_snr[k]) / 2 * eps_error == pytest.approx(kl.item(), rel=1e-12)


def test_normal_kl_is_that_of_improved_diffusion():
    """KL(N(.3, .5) || N(-.2, .8)); the formula without dividing by the second variance gives .297502."""
    mean, variance, other, other_variance = torch.tensor([0.3, 0.5, -0.2, 0.8], dtype=torch.float64)
    assert normal_kl(mean, variance, other, other_variance).item() == pytest.approx(0.203751802, abs=2e-8)


def test_moves_cost_what_variational_diffusion_models_count():
    """google-research/vdm: T = 1,000, -log-SNR linear from -13.3 to 5, squared error of eps .7 at every level."""
    log_snr = 13.3 - 18.3 * torch.arange(1001, dtype=torch.float64) / 1000
    per_eps = transition_weights(log_snr)[1:] / log_snr[1:].exp()
    assert (1000 * 0.7 * per_eps).tolist() == pytest.approx([6.46396489] * 1000, rel=1e-8)
    continuous = 18.3 * 0.7 / 2
    assert continuous == pytest.approx(6.405)
    assert 1000 * 0.7 * per_eps.mean().item() == pytest.approx(continuous, rel=0.01)
