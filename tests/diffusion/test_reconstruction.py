"""The last step by itself, and with the rest of the bound against the numbers of improved-diffusion."""

import math

import pytest
import torch

from pipeline.diffusion import likelihood
from pipeline.diffusion.likelihood import Chain, bits_per_dim, uniform_levels
from pipeline.diffusion.reconstruction import PIXEL_BINS, Bins, bin_log_prob
from pipeline.diffusion.schedule import Ddpm

TAILS = torch.tensor([-1.0, -0.498039186, 0.003921628, 0.301960826, 1.0], dtype=torch.float64)
TAIL_MEANS = torch.tensor([-0.9, -0.52, 0.01, 0.35, 0.8], dtype=torch.float64)


def tanh_bin_log_prob(x, mean, std, bins):
    """improved-diffusion's, whose distribution function is 1/2 (1 + tanh(sqrt(2/pi) (x + .044715 x^3)))."""

    def cdf(z):
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2

    upper, lower = cdf((x + 1 / 255 - mean) / std), cdf((x - 1 / 255 - mean) / std)
    middle = (upper - lower).clamp_min(1e-12).log()
    ends = torch.where(x > 0.999, (1 - lower).clamp_min(1e-12).log(), middle)
    return torch.where(x < -0.999, upper.clamp_min(1e-12).log(), ends)


def test_discretised_gaussian_is_exact_where_improved_diffusion_approximates():
    std = math.exp(-2.99573227)
    exact = bin_log_prob(TAILS, TAIL_MEANS, std, PIXEL_BINS)
    expected = torch.tensor([-3.59976919, -2.86860531, -2.77972163, -3.23295444, -10.0316121]).double()
    assert torch.allclose(exact, expected, rtol=0, atol=2e-6)
    theirs = torch.tensor([-3.60035563, -2.86902189, -2.77976274, -3.23381591, -10.5624876]).double()
    approximate = tanh_bin_log_prob(TAILS.float(), TAIL_MEANS.float(), std, PIXEL_BINS).double()
    assert torch.allclose(approximate, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("std", [1e-3, 0.05, 3.0])
def test_bins_share_out_all_of_the_mass(std):
    pixels = torch.arange(256, dtype=torch.float64) * 2 / 255 - 1
    for mean in (-1.7, -0.4, 0.011, 1.0):
        log_prob = bin_log_prob(pixels, torch.full_like(pixels, mean), std, PIXEL_BINS)
        assert torch.logsumexp(log_prob, 0).item() == pytest.approx(0, abs=1e-12)


def test_bins_far_out_keep_their_digits():
    """Against the asymptotic series of the tail: ln Phi(-z) ~ -z^2/2 - ln(z sqrt(2 pi)) - 1/z^2 + 5/(2 z^4)."""
    x, zero = torch.tensor([400.5, -400.5], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    z = 400.0
    expected = -(z**2) / 2 - math.log(z * math.sqrt(2 * math.pi)) - 1 / z**2
    assert bin_log_prob(x, zero, 1.0, Bins(1.0)).tolist() == pytest.approx([expected] * 2, rel=1e-12)
    assert bin_log_prob(torch.zeros(1), torch.zeros(1), 1e3, Bins(1e-3)).item() == pytest.approx(
        math.log(1e-6 / math.sqrt(2 * math.pi)), rel=1e-9
    )


def test_bins_by_channel_are_those_of_each_channel(rng):
    x = torch.randn(3, 2, 4, 4, generator=rng)
    mean, width = x + 0.1, torch.tensor([0.1, 0.5])[:, None, None]
    both = bin_log_prob(x, mean, 0.3, Bins(width))
    for channel in range(2):
        one = bin_log_prob(x[:, channel], mean[:, channel], 0.3, Bins(width[channel].item()))
        assert torch.allclose(both[:, channel], one, rtol=1e-6)
    with pytest.raises(ValueError, match="width must be above 0, got 0"):
        Bins(0.0)


@pytest.mark.parametrize(
    ("log_prob", "expected"),
    [(tanh_bin_log_prob, (9.57641888, 9.47368622)), (bin_log_prob, (9.57594318, 9.47319608))],
)
def test_bits_per_dim_are_those_of_improved_diffusion(monkeypatch, rng, log_prob, expected):
    """Its calc_bpd_loop at T=50, small fixed variance, on fixed data and noise; then with exact probabilities."""

    def fixed(rate):
        return torch.sin(rate * torch.arange(1, 97, dtype=torch.float64)).reshape(2, 1, 3, 4, 4)

    noises = iter([1.2 * fixed(0.11 + 0.05 * draw) for draw in range(1, 51)])
    monkeypatch.setattr(likelihood, "noise_like", lambda *_: next(noises))
    monkeypatch.setattr(likelihood, "bin_log_prob", log_prob)
    x0 = ((0.9 * fixed(0.37) + 1) * 127.5).round() / 127.5 - 1
    schedule = Ddpm(num_levels=50)

    def denoise(x_t, t):
        alpha, sigma = schedule.at(t)
        return (x_t - sigma * (sigma * x_t / (0.5 * alpha**2 + sigma**2))) / alpha

    levels = uniform_levels(schedule, 50)
    alpha_squared = torch.sigmoid(levels.log_snr[:2])
    step = 1 - alpha_squared[1] / alpha_squared[0]
    std = (step * (1 - alpha_squared[0]) / (1 - alpha_squared[1])).sqrt().item()
    chain = Chain(schedule, levels, std, PIXEL_BINS)
    bound = chain.along(denoise, x0, chain.path(1, 0), rng)
    assert bits_per_dim(bound.nats, 48).tolist() == pytest.approx(expected, abs=3e-6)
    prior = bits_per_dim(bound.prior, 48).tolist()
    assert prior == pytest.approx([2.35091125e-06, 2.15068462e-06], abs=2e-8)


def test_each_frame_is_reconstructed_once_on_any_path(rng):
    """A denoiser that answers 0 pays the same on every path, also on one where frames wait at level 1."""
    schedule = Ddpm(num_levels=2)
    chain = Chain(schedule, uniform_levels(schedule, 2), 0.3, PIXEL_BINS)
    x0 = torch.rand(3, 2, 1, 2, 2, generator=rng, dtype=torch.float64) * 2 - 1
    zigzag = torch.tensor([[2, 2], [1, 2], [1, 1], [0, 1], [0, 0]])
    lockstep, waiting = (
        chain.along(lambda x_t, _: torch.zeros_like(x_t), x0, rows, rng) for rows in (chain.path(2, 0), zigzag)
    )
    expected = -bin_log_prob(x0, torch.zeros_like(x0), 0.3, PIXEL_BINS).flatten(1).sum(1)
    for bound in (lockstep, waiting):
        assert torch.allclose(bound.reconstruction, expected, rtol=1e-12)
        assert torch.allclose(bound.transitions, lockstep.transitions, rtol=1e-12)
