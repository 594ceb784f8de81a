"""Errata of the journal-club slides on Kingma & Gao, "Understanding Diffusion Objectives as the ELBO"."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from pipeline.diffusion.schedule import SCHEDULES
from tests.closed_forms import SKEWED, Mixture, gaussian, kl, normal_nodes

# One move of a variance-preserving chain, from z_t to the cleaner z_s.
ALPHA_S, SIGMA_S = 0.8, 0.6
ALPHA_T, SIGMA_T = 0.6, 0.8
STEP_VAR = SIGMA_T**2 - (ALPHA_T / ALPHA_S) ** 2 * SIGMA_S**2  # sigma_{t|s}^2


def preserving(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def test_eq4_the_exploding_diffusion_is_the_slope_of_the_variance():
    """sigma(t) = 80 t: the SDE must add 80^2 from t = 0 to 1."""

    def slope(of, t: float) -> float:
        return (of(t + 1e-6) - of(t - 1e-6)) / 2e-6

    def log_snr(t: float) -> float:
        return -2 * math.log(80 * t)

    needed, as_written = (
        quad(lambda t, of=of: slope(of, t), 1e-5, 1, limit=200)[0]
        for of in (lambda t: math.exp(-log_snr(t)), lambda t: math.log1p(math.exp(-log_snr(t))))
    )
    assert needed == pytest.approx(6400, rel=1e-5)
    assert as_written == pytest.approx(8.764, abs=1e-3)


def test_eq7_the_cross_term_counts_twice():
    """Data N(0, 1), model N(0, 2)."""
    q, p = gaussian(0.0, 1.0), gaussian(0.0, math.sqrt(2))
    squared = q.mean_of(lambda x: (q.score(x) - p.score(x)) ** 2).item()
    own, cross, model = (
        q.mean_of(lambda x, a=a, b=b: a.score(x) * b.score(x)).item() for a, b in ((q, q), (q, p), (p, p))
    )
    assert squared == pytest.approx(0.25, abs=1e-9)
    assert own - 2 * cross + model == pytest.approx(0.25, abs=1e-9)
    assert own - cross + model == pytest.approx(0.75, abs=1e-9)  # as written


def test_eq9_denoising_and_explicit_score_matching_differ_by_a_constant():
    """x ~ N(0, 1), z = .6 x + .8 eps, two models of the score."""
    a, s = 0.6, 0.8
    nodes, weights = normal_nodes(60)
    x, eps = torch.meshgrid(nodes, nodes, indexing="ij")
    share = weights[:, None] * weights
    z = a * x + s * eps
    constants = []
    for model in (gaussian(0.3, 1.4), SKEWED):
        explicit = (share * (-z - model.score(z)) ** 2).sum().item()  # the law of z is N(0, 1)
        denoising = (share * (-eps / s - model.score(z)) ** 2).sum().item()
        constants.append(denoising - explicit)
    assert constants == pytest.approx([0.5625, 0.5625], abs=1e-6)  # 1 / s^2 - 1 / (a^2 + s^2), not 0


def test_eq11_as_written_learns_minus_the_score(rng):
    a, s = 0.6, 0.8
    x, eps = torch.randn(2, 400_000, generator=rng, dtype=torch.float64)
    z = a * x + s * eps
    as_written, correct = (sign * (z - a * x) / s**2 for sign in (1, -1))
    slopes = [((target * z).mean() / (z * z).mean()).item() for target in (as_written, correct)]
    assert slopes == pytest.approx([1.0, -1.0], abs=0.01)  # the score of z ~ N(0, 1) is -z


def posterior_mean(z: float, x: float) -> float:
    """By Bayes' rule on q(z_s | x) and q(z_t | z_s), from precisions."""
    ratio = ALPHA_T / ALPHA_S
    precision = 1 / SIGMA_S**2 + ratio**2 / STEP_VAR
    return (ALPHA_S * x / SIGMA_S**2 + ratio * z / STEP_VAR) / precision


def test_eq42_the_means_differ_by_the_coefficient_of_34():
    difference = posterior_mean(0.4, x=1.0) - posterior_mean(0.4, x=0.0)
    assert difference == pytest.approx(ALPHA_S * STEP_VAR / SIGMA_T**2, abs=1e-12)
    assert difference == pytest.approx(0.546875)
    assert pytest.approx(1.7778, abs=1e-4) == ALPHA_S**2 / SIGMA_S**2  # as written


def test_eq43_lacks_the_ratio_of_signal_to_noise_ratios():
    sd = math.sqrt(SIGMA_S**2 * STEP_VAR / SIGMA_T**2)
    by_quadrature = kl(gaussian(posterior_mean(0.4, 1.0), sd), gaussian(posterior_mean(0.4, 0.0), sd)).item()
    snr_s, snr_t = ALPHA_S**2 / SIGMA_S**2, ALPHA_T**2 / SIGMA_T**2
    assert by_quadrature == pytest.approx(snr_s / 2 * (1 - snr_t / snr_s), abs=1e-9)
    assert by_quadrature == pytest.approx((snr_s - snr_t) / 2, abs=1e-9)  # (44) is right
    assert snr_s / 2 * (1 - snr_t) == pytest.approx(0.3889, abs=1e-4)  # as written
    assert by_quadrature == pytest.approx(0.6076, abs=1e-4)


def test_eq52_the_slope_of_the_snr_is_e_to_the_log_snr_times_that_of_the_log_snr():
    """Cosine schedule at t = .3."""
    t = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    log_snr = SCHEDULES["cosine"]().log_snr(t)
    (of_log_snr,) = torch.autograd.grad(log_snr.sum(), t, retain_graph=True)
    (of_snr,) = torch.autograd.grad(log_snr.exp().sum(), t)
    assert of_log_snr.item() == pytest.approx(-7.7664, abs=1e-4)  # as written
    assert of_snr.item() == pytest.approx(-29.9151, abs=1e-4)
    assert of_snr.item() == pytest.approx((log_snr.exp() * of_log_snr).item())


def test_eq56_carries_a_half_that_55_lacks(rng):
    alpha, sigma = 0.6, 0.8
    x, eps, error = torch.randn(3, 1000, generator=rng, dtype=torch.float64)
    z, predicted = alpha * x + sigma * eps, eps + 0.3 * error
    true_score = -(z - alpha * x) / sigma**2
    eq55 = (sigma**2 * (-predicted / sigma - true_score) ** 2).mean().item()
    eq56 = ((predicted - eps) ** 2).mean().item() / 2
    assert eq55 == pytest.approx(2 * eq56, rel=1e-12)


def weighted_loss(weight, p: Mixture, low: float, high: float) -> float:
    """1/2 integral of w sigma^2 E_q|s_q - s_p|^2 dlog_snr: the excess of (58) for the denoiser of p."""
    nodes, shares = np.polynomial.legendre.leggauss(80)
    total = 0.0
    for node, share in zip((low + high + (high - low) * nodes) / 2, shares * (high - low) / 2, strict=True):
        log_snr = torch.tensor(node, dtype=torch.float64)
        alpha, sigma = preserving(log_snr)
        q_t, p_t = SKEWED.noised(alpha, sigma), p.noised(alpha, sigma)
        error = sigma**2 * q_t.mean_of(lambda z, q_t=q_t, p_t=p_t: (q_t.score(z) - p_t.score(z)) ** 2)
        total += share * weight(log_snr).item() * error.item() / 2
    return total


def divergence(p: Mixture, log_snr: float) -> float:
    alpha, sigma = preserving(torch.tensor(log_snr, dtype=torch.float64))
    return kl(SKEWED.noised(alpha, sigma), p.noised(alpha, sigma)).item()


@pytest.mark.parametrize("shape", ["elbo", "sigmoid"])
def test_eq65_the_law_over_times_has_an_atom_at_the_clean_end(shape):
    """Data SKEWED, student N(.1, .7^2)."""
    low, high = -8.5, 9.0
    weight = {"elbo": torch.ones_like, "sigmoid": lambda x: torch.sigmoid(2 - x)}[shape]
    student = gaussian(0.1, 0.7)
    loss = weighted_loss(weight, student, low, high)
    spread = 0.0  # E over p_w = dw/dt, as written; dw/dt dt = -dw/dlog_snr dlog_snr
    nodes, shares = np.polynomial.legendre.leggauss(80)
    for node, share in zip((low + high + (high - low) * nodes) / 2, shares * (high - low) / 2, strict=True):
        log_snr = torch.tensor(node, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(weight(log_snr) + 0 * log_snr, log_snr)[0].item()
        spread -= share * slope * divergence(student, node)
    ends = [weight(torch.tensor(end)).item() for end in (high, low)]
    atom = ends[0] * divergence(student, high)
    constant = -ends[1] * divergence(student, low)
    assert loss == pytest.approx(spread + atom + constant, abs=2e-5)
    if shape == "elbo":
        assert spread == pytest.approx(0, abs=1e-12)  # as written, the ELBO would be an average over nothing
        assert loss == pytest.approx(0.640654, abs=1e-3)  # the atom: KL(q || p)
    else:
        assert loss == pytest.approx(0.39705, abs=2e-4)


def test_schedule_table_shifted_cosine_inverse_adds_the_shift():
    shift = math.log(64 / 128)
    schedule = SCHEDULES["cosine"](log_shift=shift)
    t = torch.tensor([0.3], dtype=torch.float64)
    log_snr = schedule.log_snr(t)
    correct, as_written = (2 / math.pi * torch.atan(torch.exp(-log_snr / 2 + sign * shift)) for sign in (1, -1))
    assert correct.item() == pytest.approx(0.3, abs=1e-12)
    assert schedule.level(log_snr).item() == pytest.approx(0.3, abs=1e-12)
    assert as_written.item() == pytest.approx(0.7096, abs=1e-4)


def test_schedule_table_edm_training_has_mean_plus_2_4():
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    quantile = 2.4 + 2.4 * math.sqrt(2) * torch.erfinv(2 * u - 1)  # F^-1(t; 2.4, 2.4^2)
    as_written, correct = -quantile, quantile.flip(0)  # -F^-1(t), F^-1(1 - t)
    assert as_written.mean().item() == pytest.approx(-2.4, abs=1e-6)
    assert correct.mean().item() == pytest.approx(2.4, abs=1e-6)  # of the table's own density, N(2.4, 2.4^2)
    schedule = SCHEDULES["edm_training"]()
    assert torch.allclose(schedule.log_snr(u), correct, atol=1e-6)
    inverse = (1 + torch.erf((-correct + 2.4) / (2.4 * math.sqrt(2)))) / 2  # F(-log_snr; -2.4, 2.4^2)
    assert torch.allclose(inverse, u, atol=1e-12)
