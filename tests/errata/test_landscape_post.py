"""Errata of the post "Everything is KL minimization: The Current Autoregressive Video Generation Landscape"."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import toeplitz
from scipy.optimize import minimize, root
from torch import Tensor

from pipeline.losses.gan import OBJECTIVES
from tests.closed_forms import (
    BIMODAL,
    SKEWED,
    flow,
    gaussian,
    gaussian_kl,
    gradient,
    jsd,
    kl,
    kl_of_middle,
    minimum,
    noise_average,
    normal_nodes,
)

RHO = 0.8  # correlation of two frames of unit variance


def test_ddim_section_ddpm_is_sigma_equal_to_the_square_root_of_beta_tilde():
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    now, before, step = alpha_bar[500], alpha_bar[499], beta[500]
    beta_tilde = (1 - before) / (1 - now) * step
    chain = np.sqrt(1 - step) * (1 - before)  # Cov(x_t-1, x_t | x_0) of the forward chain

    def covariance(sigma: float) -> float:  # x_t-1 = sqrt(ab_s) x_0 + sqrt(1 - ab_s - sigma^2) eps + sigma n
        return np.sqrt(1 - before - sigma**2) * np.sqrt(1 - now)

    assert covariance(np.sqrt(beta_tilde)) == pytest.approx(chain, rel=1e-12)
    assert (chain, covariance(beta_tilde)) == pytest.approx((0.916766, 0.921757), abs=1e-6)  # the text: the second
    assert np.sqrt(1 - before - beta_tilde) ** 2 + beta_tilde == pytest.approx(1 - before)  # the marginal is kept


def test_schedules_need_not_be_affine_to_be_equivalent_but_the_weight_changes():
    z = torch.linspace(-3, 4, 15, dtype=torch.float64)  # x + e^(-log_snr / 2) eps
    for log_snr in (-3.0, 0.0, 4.0):
        cosine_t = 2 / np.pi * np.arctan(np.exp(-log_snr / 2))
        alpha, sigma = np.cos(np.pi / 2 * cosine_t), np.sin(np.pi / 2 * cosine_t)
        straight_t = 1 / (1 + np.exp(log_snr / 2))
        cosine = SKEWED.denoiser(alpha * z, alpha, sigma)
        straight = SKEWED.denoiser((1 - straight_t) * z, 1 - straight_t, straight_t)
        assert torch.allclose(cosine, straight, atol=1e-12)  # one network, read through either schedule
    t = np.array([0.1, 0.3, 0.5])
    of_equal_log_snr = 1 / (1 + 1 / np.tan(np.pi * t / 2))  # the straight time of each cosine time
    assert abs(np.diff(of_equal_log_snr, 2)[0]) > 0.03  # curved: no affine map takes one schedule to the other
    implied = [(1 / np.cosh(x / 2) / np.pi) / (1 / np.cosh(x / 4) ** 2 / 4) for x in (0.0, 8.0)]
    assert implied == pytest.approx([1.2732, 0.6599], abs=2e-4)  # eps-L2: w cosine / w straight


def test_gan_section_the_loss_everybody_runs_does_not_minimise_the_jsd():
    """Optimal discriminator, data SKEWED at t = .5, student N(.2, .7^2)."""
    m, s = 0.2, 0.7
    t = 0.5
    noise, weights = normal_nodes(150)
    real, fake = flow(SKEWED, t), flow(gaussian(m, s), t)

    def student_loss(objective: str):
        def value(m: Tensor, s: Tensor) -> Tensor:
            z = ((1 - t) * m) + ((1 - t) ** 2 * s**2 + t**2) ** 0.5 * noise
            return weights @ OBJECTIVES[objective](real.log_density(z) - fake.log_density(z))

        return value

    def of(divergence):
        return lambda m, s: 2 * divergence(flow(gaussian(m, s), t), real)

    of_jsd, of_middle = gradient(of(jsd), m, s), gradient(of(kl_of_middle), m, s)
    assert gradient(student_loss("saturating"), m, s) == pytest.approx(of_jsd, abs=1e-7)
    assert gradient(student_loss("non_saturating"), m, s) == pytest.approx(of_middle, abs=1e-7)
    assert of_jsd == pytest.approx((-0.0591, -0.0537), abs=1e-4)
    assert of_middle == pytest.approx((-0.0412, -0.0269), abs=1e-4)


def test_gan_section_the_two_losses_have_different_optima():
    best = [minimum(lambda m, s, f=f: f(gaussian(m, s), SKEWED), 0.3, 0.8) for f in (jsd, kl_of_middle)]
    assert best[0] == pytest.approx((0.3385, 0.8587), abs=2e-4)
    assert best[1] == pytest.approx((0.0983, 0.5784), abs=2e-4)


def test_what_is_kl_section_the_optimum_differs_between_methods_at_finite_capacity():
    forward = minimum(lambda m, s: kl(SKEWED, gaussian(m, s)), 0.3, 0.8)
    reverse = minimum(lambda m, s: kl(gaussian(m, s), SKEWED), 0.3, 0.8)
    assert forward == pytest.approx((0.5, 1.08972), abs=2e-4)
    assert reverse == pytest.approx((0.1479, 0.6309), abs=2e-4)


@pytest.mark.parametrize(("t", "correlation", "divergence"), [(1.0, 0.0, 1.26695), (0.5, 0.4, 0.46524)])
def test_unified_table_teacher_forcing_outputs_judged_together_are_wrong_with_perfect_conditionals(
    t, correlation, divergence, rng
):
    x1, e1, n1, n2 = torch.randn(4, 400_000, generator=rng, dtype=torch.float64)
    x2 = RHO * x1 + (1 - RHO**2) ** 0.5 * torch.randn(400_000, generator=rng, dtype=torch.float64)
    z1, z2 = (1 - t) * x1 + t * e1, (1 - t) * x2 + t * torch.randn(400_000, generator=rng, dtype=torch.float64)

    def posterior(z: Tensor, prior_mean: Tensor | float, prior_var: float, n: Tensor) -> Tensor:
        gain = prior_var * (1 - t) / ((1 - t) ** 2 * prior_var + t**2)
        return prior_mean + gain * (z - (1 - t) * prior_mean) + (prior_var * (1 - gain * (1 - t))) ** 0.5 * n

    first = posterior(z1, 0.0, 1.0, n1)
    second = posterior(z2, RHO * x1, 1 - RHO**2, n2)  # the context is the clean frame of data, not `first`
    assert torch.corrcoef(torch.stack([x1, second]))[0, 1].item() == pytest.approx(
        RHO, abs=0.005
    )  # the pair: right
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].item() == pytest.approx(correlation, abs=0.005)
    judged, data = (np.array([[1, r], [r, 1]]) for r in (correlation, RHO))
    assert gaussian_kl(judged, data) == pytest.approx(divergence, abs=1e-5)


def test_dmd_section_reverse_kl_averaged_over_noise_is_not_mode_seeking():
    clean = minimum(lambda m, s: kl(gaussian(m, s), BIMODAL), -1.0, 0.8)
    averaged = minimum(
        lambda m, s: noise_average(lambda t: kl(flow(gaussian(m, s), t), flow(BIMODAL, t))), -1.0, 0.8
    )
    assert clean == pytest.approx((-1.4636, 0.6461), abs=2e-4)  # on the larger mode, N(-1.5, .6^2)
    assert averaged == pytest.approx((-0.4026, 1.4046), abs=2e-4)  # across both


def test_df_section_l2_on_independent_levels_minimises_a_sum_of_conditional_kls():
    """Not the joint forward KL. Two frames, flow-matching levels, ELBO weight."""
    q, p = np.array([[1.0, 0.8], [0.8, 1.0]]), np.array([[0.9, 0.5], [0.5, 1.2]])
    nodes, weights = np.polynomial.legendre.leggauss(80)
    t, share = (nodes + 1) / 2, weights / 2

    def denoiser(c: np.ndarray, a: np.ndarray, s: np.ndarray) -> np.ndarray:
        return c @ np.diag(a) @ np.linalg.inv(np.diag(a) @ c @ np.diag(a) + np.diag(s**2))

    loss = 0.0
    for i, j in np.ndindex(len(t), len(t)):
        s = t[[i, j]]
        a = 1 - s
        error = denoiser(q, a, s) - denoiser(p, a, s)
        squared = np.diag(error @ (np.diag(a) @ q @ np.diag(a) + np.diag(s**2)) @ error.T)
        loss += share[i] * share[j] * float((a / s**3) @ squared)  # 1/2 (-dlambda/dt) alpha^2 / sigma^2

    def conditional_kl(f: int, s: float) -> float:  # E KL(q(x_f | z_g) || p(x_f | z_g)), z_g = (1 - s) x_g + s eps
        g, a = 1 - f, 1 - s
        seen_q, seen_p = a**2 * q[g, g] + s**2, a**2 * p[g, g] + s**2
        var_q, var_p = (c[f, f] - (a * c[f, g]) ** 2 / seen for c, seen in ((q, seen_q), (p, seen_p)))
        shift = (a * q[f, g] / seen_q - a * p[f, g] / seen_p) ** 2 * seen_q
        return ((var_q + shift) / var_p - 1 - np.log(var_q / var_p)) / 2

    conditionals = sum(float(share @ [conditional_kl(f, s) for s in t]) for f in (0, 1))
    assert loss == pytest.approx(conditionals, abs=1e-8)
    assert loss == pytest.approx(0.157729237, abs=1e-8)
    assert gaussian_kl(q, p) == pytest.approx(0.2008, abs=1e-4)


def test_df_section_lockstep_with_a_causal_mask_loses_half_the_mutual_information():
    def lost(log_snr: float) -> float:  # 1/2 e^log_snr (mmse of frame 1 from itself alone - mmse from both)
        noise = np.exp(-log_snr)
        both = sum(c / (c + noise) for c in (1 + RHO, 1 - RHO)) / 2  # over the eigenvalues of the covariance
        return (1 / (1 + noise) - both) / 2

    assert quad(lost, -40, 40)[0] == pytest.approx(-np.log(1 - RHO**2) / 4, abs=1e-6)  # .25541 nats


def test_sf_dmd_section_a_detached_context_does_not_minimise_the_reverse_kl():
    """Four frames of an AR(2) process; student x_1 = s1 z, x_f = c x_(f-1) + s z, with c and s shared."""
    data = toeplitz([1, 5 / 6, 49 / 60, 89 / 120])

    def student(s1: float, c: float, s: float) -> np.ndarray:
        """x = student @ z."""
        return np.array(
            [[(s1 if g == 0 else s) * c ** (f - g) if g <= f else 0.0 for g in range(4)] for f in range(4)]
        )

    def reverse_kl(at: np.ndarray) -> float:
        from_noise = student(*at)
        return gaussian_kl(from_noise @ from_noise.T, data)

    def detached(at: np.ndarray) -> list[float]:  # E[(s_fake - s_real)_f dx_f/dtheta], x_(f-1) held fixed
        from_noise = student(*at)
        covariance = from_noise @ from_noise.T
        score = np.linalg.inv(data) - np.linalg.inv(covariance)
        on_noise, on_past = score @ from_noise, score @ covariance
        return [
            on_noise[0, 0],
            sum(on_past[f, f - 1] for f in range(1, 4)),
            sum(on_noise[f, f] for f in range(1, 4)),
        ]

    best = minimize(reverse_kl, [1, 0.8, 0.5], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x
    fixed = root(detached, [0.8, 0.7, 0.5]).x
    assert best == pytest.approx([0.9728, 0.8608, 0.4977], abs=2e-4)
    assert fixed == pytest.approx([0.7136, 0.6520, 0.5236], abs=2e-4)
    assert reverse_kl(fixed) == pytest.approx(0.3255, abs=2e-4)
    assert reverse_kl(best) == pytest.approx(0.1680, abs=2e-4)
