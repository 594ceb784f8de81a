"""Errata of the notes "Distilled Diffusion Models", sections 4 and 5: adversarial and score distillation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.closed_forms import (
    HIGHEST,
    LOWEST,
    SKEWED,
    flow,
    gaussian,
    gradient,
    kl,
    minimum,
    noise_average,
    normal_nodes,
)

M, S = 0.2, 0.7  # the student N(M, S^2), x = M + S z
THETA, SIGMA = 0.6, 0.8  # the toy of section 5.3.1: data N(0, 1), student N(THETA, 1), noise SIGMA


def test_eq55_to_58_the_adversarial_term_is_the_logarithm_of_one_minus_d():
    d = torch.linspace(1e-4, 1 - 1e-4, 99_999, dtype=torch.float64)
    real, fake = 0.3, 0.9  # two densities at one point
    correct = real * d.log() + fake * torch.log1p(-d)
    as_written = real * d.log() + fake * (1 - d.log())
    assert d[correct.argmax()].item() == pytest.approx(real / (real + fake), abs=1e-4)
    assert d[as_written.argmax()].item() == d[0]  # runs away to D = 0, where the value is unbounded
    assert (1 - d.log())[0] > 10


def test_eq61_the_gradient_of_a_log_density_is_not_divided_by_the_density():
    z = 0.8
    x = torch.tensor(M + S * z, dtype=torch.float64)
    by_autograd = gradient(lambda m, s: SKEWED.log_density(m + s * z), M, S)[0]
    score, density = SKEWED.score(x).item(), SKEWED.log_density(x).exp().item()
    assert by_autograd == pytest.approx(score, abs=1e-12)
    assert (score, score / density) == pytest.approx((-2.1970, -9.3596), abs=1e-4)  # the second as written


def test_eq62_to_65_the_blue_term_has_mean_zero_so_the_dmd_gradient_is_exact():
    p = gaussian(M, S)

    def expected_log_density(m: Tensor, s: Tensor) -> Tensor:  # samples of p as it is, the log density of N(m, s^2)
        return p.mean_of(gaussian(m, s).log_density)

    assert gradient(expected_log_density, M, S) == pytest.approx((0, 0), abs=1e-10)
    assert kl(SKEWED, p).item() == pytest.approx(0.5692, abs=1e-4)  # what (65) says that it equals
    z, weights = normal_nodes(150)
    x = M + S * z
    difference = weights * (p.score(x) - SKEWED.score(x))
    eq63 = (difference.sum().item(), (difference @ z).item())
    exact = gradient(lambda m, s: kl(gaussian(m, s), SKEWED), M, S)
    assert eq63 == pytest.approx(exact, abs=1e-6)


def test_eq67_and_71_noise_is_scaled_by_sigma_not_its_square(rng):
    noise = torch.randn(400_000, generator=rng, dtype=torch.float64)
    assert (SIGMA * noise).var().item() == pytest.approx(SIGMA**2, abs=0.005)  # of p_t(x | G) = N(G, sigma^2), (66)
    assert abs((SIGMA**2 * noise).var().item() - SIGMA**2) > 0.2  # as written


def test_eq68_the_target_is_detached():
    """Its Jacobian counts as 0: the true one gives another gradient, and 1, as written, gives none."""
    g = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    target = SKEWED.denoiser(g + SIGMA * 0.5, 1.0, SIGMA)
    gap = (g - target).detach()

    def slope(target: Tensor) -> float:
        return torch.autograd.grad((g - target) ** 2, g)[0].item()

    assert slope(target.detach()) == pytest.approx(2 * gap.item(), abs=1e-12)  # the gradient that (68) states
    assert slope(g - gap) == pytest.approx(0, abs=1e-12)  # a target of Jacobian 1
    assert (2 * gap.item(), slope(target)) == pytest.approx((0.1772, -0.0276), abs=1e-4)


def test_eq70_add_descends_the_cross_entropy_not_the_reverse_kl():
    """t = .5 of the straight path."""
    t = torch.tensor(0.5, dtype=torch.float64)
    alpha, sigma = 1 - t, t
    nodes, weights = normal_nodes(80)
    z, eps = torch.meshgrid(nodes, nodes, indexing="ij")
    share = weights[:, None] * weights
    x = M + S * z
    noisy = alpha * x + sigma * eps
    real, fake = flow(SKEWED, t).score(noisy), flow(gaussian(M, S), t).score(noisy)

    def on_parameters(field: Tensor) -> tuple[float, float]:  # E[field dx/d(m, s)]
        return (share * field).sum().item(), (share * field * z).sum().item()

    add = on_parameters(2 * (x - SKEWED.denoiser(noisy, alpha, sigma)))
    cross_entropy, dmd = on_parameters(-alpha * real), on_parameters(alpha * (fake - real))
    factor = (2 * sigma**2 / alpha**2).item()
    assert add == pytest.approx([factor * c for c in cross_entropy], abs=1e-7)
    assert dmd == pytest.approx(gradient(lambda m, s: kl(flow(gaussian(m, s), t), flow(SKEWED, t)), M, S), abs=1e-6)
    assert add == pytest.approx((-0.2005, 0.7784), abs=1e-4)  # the same pull on the mean,
    assert [factor * d for d in dmd] == pytest.approx((-0.2005, -0.1612), abs=1e-4)  # the opposite on the width


def toy_gradient(value) -> float:
    """d value / d theta at THETA, by quadrature over z and eps: x = theta + z, noisy = x + SIGMA eps."""
    nodes, weights = normal_nodes(20)
    z, eps = torch.meshgrid(nodes, nodes, indexing="ij")

    def expected(theta: Tensor) -> Tensor:
        x = theta + z
        return (weights[:, None] * weights * value(x, x + SIGMA * eps)).sum()

    return gradient(expected, THETA)[0]


def real_x0(noisy: Tensor) -> Tensor:
    return noisy / (1 + SIGMA**2)


def fake_x0(noisy: Tensor, phi: float = THETA) -> Tensor:
    return (noisy + phi * SIGMA**2) / (1 + SIGMA**2)


def toy_mean(value) -> float:
    nodes, weights = normal_nodes(20)
    z, eps = torch.meshgrid(nodes, nodes, indexing="ij")
    x = THETA + z
    return (weights[:, None] * weights * value(x, x + SIGMA * eps)).sum().item()


def test_eq76_the_losses_are_squares():
    loss = toy_mean(lambda _, noisy: (fake_x0(noisy) - real_x0(noisy)) ** 2)
    as_written = THETA * SIGMA**2 / (1 + SIGMA**2)
    assert loss == pytest.approx(as_written**2, abs=1e-12)
    assert (loss, as_written) == pytest.approx((0.054825, 0.234146), abs=1e-6)


@pytest.mark.parametrize(("phi", "exact"), [(THETA, True), (0.2, False)])
def test_eq77_and_78_hold_when_the_fake_score_has_converged(phi, exact):
    of_kl = gradient(
        lambda theta: kl(gaussian(theta, (1 + SIGMA**2) ** 0.5), gaussian(0, (1 + SIGMA**2) ** 0.5)), THETA
    )
    as_written = phi / (1 + SIGMA**2)
    assert (as_written == pytest.approx(of_kl[0], abs=1e-8)) is exact
    if exact:
        assert as_written == pytest.approx(0.365854, abs=1e-6)


def test_eq81_to_83_scale_with_the_fourth_power_of_sigma():
    product = toy_mean(lambda x, noisy: (real_x0(noisy) - fake_x0(noisy)) * (real_x0(noisy) - x))
    of_scores = (THETA / (1 + SIGMA**2)) ** 2  # E|s_real - s_fake|^2
    assert product / SIGMA**4 == pytest.approx(of_scores, abs=1e-12)
    assert product / SIGMA**2 == pytest.approx(0.085664, abs=1e-6)  # as written
    assert of_scores == pytest.approx(0.133849, abs=1e-6)


def test_eq83_has_the_wrong_sign_on_its_first_term():
    of_loss = toy_gradient(lambda x, noisy: (real_x0(noisy) - fake_x0(noisy)) * (real_x0(noisy) - x))
    as_written = toy_gradient(lambda x, noisy: (fake_x0(noisy) - real_x0(noisy)) * (real_x0(noisy) - x))
    half = THETA * SIGMA**4 / (1 + SIGMA**2) ** 2  # 1/2 d/dtheta E|x_fake - x_real|^2, the fake following theta
    assert of_loss == pytest.approx(half, abs=1e-12)
    assert as_written == pytest.approx(-half, abs=1e-12)  # climbs away from the data
    assert half == pytest.approx(0.091374, abs=1e-6)


def identity_distillation(alpha: float):
    """(83) with the right sign on SKEWED, critic optimal and frozen: E[delta (R - x) - alpha delta^2]."""
    nodes, weights = normal_nodes(48)
    z, eps = torch.meshgrid(nodes, nodes, indexing="ij")
    share = weights[:, None] * weights

    def value(m: Tensor, s: Tensor) -> Tensor:
        x = m + s * z

        def at(t: Tensor) -> Tensor:
            noisy = (1 - t) * x + t * eps
            real = SKEWED.denoiser(noisy, 1 - t, t)
            delta = real - gaussian(M, S).denoiser(noisy, 1 - t, t)
            return (share * (delta * (real - x) - alpha * delta**2)).sum()

        return noise_average(at)

    return value


def fisher(m: Tensor, s: Tensor, power: int = 0) -> Tensor:
    """E_t E_p |R - K|^2, the critic K following the student."""

    def at(t: Tensor) -> Tensor:
        p = flow(gaussian(m, s), t)
        difference = p.mean_of(lambda z: (p.score(z) - flow(SKEWED, t).score(z)) ** 2)
        return t**4 / (1 - t) ** 2 * difference

    return noise_average(at)


def test_eq83_only_alpha_one_half_gives_the_direction_of_the_fisher_divergence():
    half = np.array(gradient(fisher, M, S)) / 2
    assert half == pytest.approx((-0.0937917, -0.0299865), abs=1e-5)
    assert gradient(identity_distillation(0.5), M, S) == pytest.approx(half, abs=1e-5)
    for alpha, biased in ((1.0, (-0.115144, -0.048771)), (1.2, (-0.123686, -0.056284))):
        assert gradient(identity_distillation(alpha), M, S) == pytest.approx(biased, abs=1e-5)
        assert abs(biased[1] / biased[0] - half[1] / half[0]) > 0.1  # another direction, not another step


def test_eq83_at_one_half_is_a_reverse_kl_averaged_over_noise():
    """With W = t^3 / (1 - t): integral of W' KL(p_t || q_t), and its ends. Fills in "SiD: under construction"."""

    def weight(t):
        return t**3 / (1 - t)

    def spread(m: Tensor, s: Tensor) -> Tensor:
        return noise_average(
            lambda t: (3 * t**2 - 2 * t**3) / (1 - t) ** 2 * kl(flow(gaussian(m, s), t), flow(SKEWED, t)), 48
        )

    m, s = torch.tensor(M), torch.tensor(S)
    low, high = (weight(t) * kl(flow(gaussian(m, s), t), flow(SKEWED, t)) for t in (LOWEST, HIGHEST))
    span = HIGHEST - LOWEST
    assert (span * fisher(m, s)).item() == pytest.approx((span * spread(m, s) + low - high).item(), abs=1e-6)
    assert (span * fisher(m, s)).item() == pytest.approx(0.0564965, abs=1e-6)
    assert minimum(fisher, 0.4, 0.9) == pytest.approx((0.4868, 0.9792), abs=5e-4)
