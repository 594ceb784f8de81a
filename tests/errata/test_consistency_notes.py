"""Errata of the notes "Distilled Diffusion Models", sections 1 to 3: consistency models."""

import math

import numpy as np
import pytest
import torch

from tests.closed_forms import gaussian, mixture


def test_eq8_the_boundary_needs_the_output_scale_to_vanish_at_t1():
    """f = c1 x + c2 F, t1 = .002, t2 = .5, any F."""
    t1, t2, sd = 0.002, 0.5, 0.5
    x, network = 1.7, -3.0

    def boundary(c1: float, c2: float) -> float:
        return c1 * x + c2 * network

    def scales(t: float, zero: float) -> tuple[float, float]:  # of consistency models, arXiv:2303.01469, appendix C
        return sd**2 / ((t - zero) ** 2 + sd**2), (t - zero) * sd / math.sqrt(t**2 + sd**2)

    assert boundary(*scales(t1, zero=t1)) == x
    c2_as_written = scales(t1, zero=t2)[1]  # c1(t1) = 1, c2(t2) = 0
    assert abs(boundary(1.0, c2_as_written) - x) > 1
    edm_skip = sd**2 / (t1**2 + sd**2)  # the plain preconditioner misses by little, and by c_out F
    assert edm_skip == pytest.approx(0.999984, abs=1e-6)
    assert abs(boundary(*scales(t1, zero=0.0)) - x) > 1e-3


def test_section_1_4_the_score_divides_by_t_squared():
    """Data N(0, 1), t = 2, x = 1."""
    x = torch.tensor(1.0, dtype=torch.float64)
    data, t = gaussian(0.0, 1.0), 2.0
    gap = (x - data.denoiser(x, 1.0, t)).item()
    score = data.noised(1.0, t).score(x).item()
    assert score == pytest.approx(-0.2)
    assert -gap / t**2 == pytest.approx(-0.2)
    assert -gap / t == pytest.approx(-0.4)  # as written


def karras(num: int) -> np.ndarray:
    """EDM's noise levels, rising from .002 to 80."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    return (low + np.arange(num) / (num - 1) * (high - low)) ** 7


def std_ratio(levels: np.ndarray, cross: np.ndarray, *, stop_gradient: bool) -> float:
    """Std of f(x_T) over that of the data N(0, 1), for the best student f(x, t_n) = a_n x with a_1 = 1.

    cross: E[x_n x_(n+1)] of the pairs that training compares.
    """
    second = 1 + levels**2
    if stop_gradient:  # a_(n+1) regresses on the fixed target a_n x_n
        last = np.prod(cross / second[1:])
    else:  # all a_n together minimise sum E(a_(n+1) x_(n+1) - a_n x_n)^2: a tridiagonal system
        count = len(levels) - 1
        system, right = np.zeros((count, count)), np.zeros(count)
        for n in range(count):
            system[n, n] = second[n + 1] * (2 if n + 1 < count else 1)
            if n + 1 < count:
                system[n, n + 1] = system[n + 1, n] = -cross[n + 1]
        right[0] = cross[0]
        last = np.linalg.solve(system, right)[-1]
    return float(last * math.sqrt(second[-1]))


@pytest.mark.parametrize(("num", "stopped", "through"), [(18, 0.859526, 0.284918), (160, 0.983945, 0.285728)])
def test_eq7_15_21_consistency_training_needs_a_stop_gradient(num, stopped, through):
    levels = karras(num)
    same_noise = 1 + levels[:-1] * levels[1:]
    assert std_ratio(levels, same_noise, stop_gradient=True) == pytest.approx(stopped, abs=2e-6)
    assert std_ratio(levels, same_noise, stop_gradient=False) == pytest.approx(through, abs=2e-6)


def test_eq7_distillation_along_the_exact_ode_does_not_need_it():
    levels = karras(18)
    same_path = np.sqrt((1 + levels[:-1] ** 2) * (1 + levels[1:] ** 2))
    for stop_gradient in (True, False):
        assert std_ratio(levels, same_path, stop_gradient=stop_gradient) == pytest.approx(1, abs=1e-5)


def test_after_eq25_the_posterior_mean_of_a_data_set_has_a_closed_form():
    """ "Analytical form of the expectation. No way": equation (6) is it."""
    points = [-1.2, 0.1, 0.7, 2.5]
    t = 0.6
    data = mixture([0.25] * 4, points, [0.0] * 4)
    x = torch.linspace(-3, 4, 9, dtype=torch.float64, requires_grad=True)
    likelihood = torch.exp(-((x[:, None] - data.means) ** 2) / (2 * t**2))
    eq6 = (likelihood * data.means).sum(1) / likelihood.sum(1)
    (score,) = torch.autograd.grad(data.noised(1.0, t).log_density(x).sum(), x)
    assert torch.allclose(eq6, x + t**2 * score, atol=1e-10)


def test_eq32_the_right_side_is_a_logarithm():
    low, high, centre = 0.4, 1.0, 0.3
    start = 2.0  # x at the higher level
    end = centre + low / high * (start - centre)  # (33), which is right
    left = math.log((start - centre) / (end - centre))
    assert left == pytest.approx(math.log(high / low))
    assert left == pytest.approx(0.9163, abs=1e-4)
    assert high / low == pytest.approx(2.5)  # as written


EPS, THETA, EMA = 1.0, 0.3, 0.2  # the data point, the student and its moving average
LOW, SIGMA = 0.5, 1.0  # sigma_min and sigma_i


def student(x: float, sigma: float, theta: float) -> float:
    return LOW / sigma * x + (1 - LOW / sigma) * theta


def exact_loss(step: float, ema: float = EMA) -> float:
    z = 0.77  # any: it cancels
    high = SIGMA + step
    return (student(EPS + high * z, high, THETA) - student(EPS + SIGMA * z, SIGMA, ema)) ** 2


def test_eq39_is_a_square_of_a_difference():
    high = SIGMA + 0.5
    z, share, share_high = 0.77, LOW / SIGMA, LOW / high
    ahead = share_high * (EPS + high * z) + (1 - share_high) * THETA
    line_2 = (ahead - share * (EPS + SIGMA * z) + (1 - share) * EMA) ** 2  # as written: + theta^-
    line_3 = (share_high * EPS + (1 - share_high) * THETA - share * EPS - (1 - share) * EMA) ** 2
    line_1 = ahead - student(EPS + SIGMA * z, SIGMA, EMA)  # as written: no square
    assert line_3 == pytest.approx(exact_loss(0.5), abs=1e-12)
    assert exact_loss(0.5) == pytest.approx(0.004444, abs=1e-6)
    assert line_1 == pytest.approx(-0.066667, abs=1e-6)
    assert line_2 == pytest.approx(0.017778, abs=1e-6)


def test_eq42_its_remainder_is_as_large_as_the_square_that_it_keeps():
    def parts(step: float, ema: float) -> tuple[float, float]:
        toward_data = LOW * step / SIGMA**2 * (THETA - EPS)
        toward_ema = (1 - LOW / SIGMA) * (THETA - ema)
        remainder = exact_loss(step, ema) - (toward_data + toward_ema) ** 2
        return remainder / step**2, toward_data**2 / step**2

    remainder, kept = parts(1e-4, EMA)
    assert remainder == pytest.approx(0.035, abs=1e-3)  # a constant: O(step^2), as stated
    assert kept == pytest.approx(0.1225, abs=1e-3)  # of the same order
    assert abs(parts(1e-4, THETA)[0]) < 1e-3 * kept  # without a moving average the square is what is left


def test_eq47_recovers_the_noise_only_with_s_and_t_exchanged():
    """alpha_t = .4, alpha_s = .8, eps = -.4."""
    now, before, eps, x0 = 0.4, 0.8, -0.4, 0.9
    x_t = math.sqrt(now) * x0 + math.sqrt(1 - now) * eps

    def inverted(a: float, b: float) -> float:
        return (x_s - math.sqrt(a / b) * x_t) / (math.sqrt(1 - a) - math.sqrt(a / b) * math.sqrt(1 - b))

    x_s = math.sqrt(before / now) * x_t + eps * (
        math.sqrt(1 - before) - math.sqrt(before / now) * math.sqrt(1 - now)
    )
    assert inverted(before, now) == pytest.approx(eps, abs=1e-12)
    assert inverted(now, before) == pytest.approx(0.9658, abs=1e-4)  # as written
