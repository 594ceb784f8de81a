"""Errata of the slides "From Likelihood to MSE Loss in Diffusion Models"."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.closed_forms import gaussian, kl, normal_nodes


class Normal(NamedTuple):
    mean: Tensor
    var: float

    def log_density(self, x: Tensor) -> Tensor:
        return -((x - self.mean) ** 2 / self.var + math.log(2 * math.pi * self.var)) / 2


def test_vlb_the_sum_of_kls_is_minus_the_lower_bound():
    """Two steps, beta = (.1, .3), x_0 = .8; the nodes integrate the quadratic log densities exactly."""
    beta, x0 = (0.1, 0.3), 0.8
    nodes, weights = normal_nodes(8)
    share = weights[:, None] * weights
    x1 = math.sqrt(1 - beta[0]) * x0 + math.sqrt(beta[0]) * nodes[:, None].expand(8, 8)
    x2 = math.sqrt(1 - beta[1]) * x1 + math.sqrt(beta[1]) * nodes

    def model(x: Tensor) -> Normal:
        return Normal(0.7 * x + 0.1, 0.25)

    forward_1 = Normal(torch.tensor(math.sqrt(1 - beta[0]) * x0), beta[0])
    forward_2 = Normal(math.sqrt(1 - beta[1]) * x1, beta[1])
    prior = Normal(torch.zeros(()), 1.0)
    log_p = prior.log_density(x2) + model(x2).log_density(x1) + model(x1).log_density(torch.tensor(x0))
    log_q = forward_1.log_density(x1) + forward_2.log_density(x2)
    bound = (share * (log_p - log_q)).sum().item()  # L_vlb as the slides define it

    alpha_bar = (1 - beta[0]) * (1 - beta[1])
    posterior_var = beta[0] / (1 - alpha_bar) * beta[1]
    posterior_mean = (math.sqrt(1 - beta[0]) * beta[1] * x0 + math.sqrt(1 - beta[1]) * beta[0] * x2) / (
        1 - alpha_bar
    )
    terminal = kl(gaussian(math.sqrt(alpha_bar) * x0, math.sqrt(1 - alpha_bar)), gaussian(0.0, 1.0)).item()
    step = kl_of_normals(Normal(posterior_mean, posterior_var), model(x2))
    reconstruction = -(share * model(x1).log_density(torch.tensor(x0))).sum().item()
    total = terminal + (share * step).sum().item() + reconstruction
    assert total == pytest.approx(-bound, abs=1e-9)
    assert total > 0.5  # so it is not the bound itself, as written


def kl_of_normals(q: Normal, p: Normal) -> Tensor:
    """As corrected: the squared distance is measured in the model's variance."""
    return (math.log(p.var / q.var) + q.var / p.var + (q.mean - p.mean) ** 2 / p.var - 1) / 2


def test_kl_of_two_gaussians_divides_by_the_variance_of_the_model():
    """q = N(.3, .4^2), p = N(.8, .6^2)."""
    q_var, p_var, distance = 0.16, 0.36, 0.5
    by_quadrature = kl(gaussian(0.3, 0.4), gaussian(0.8, 0.6)).item()
    correct = (math.log(p_var / q_var) + q_var / p_var + distance**2 / p_var - 1) / 2
    as_written = (math.log(p_var / q_var) + q_var / p_var + distance**2 / q_var - 1) / 2
    assert correct == pytest.approx(by_quadrature, abs=1e-10)
    assert as_written - by_quadrature == pytest.approx(0.434, abs=1e-3)


def test_reconstruction_beta_tilde_of_the_first_step_is_zero():
    """Linear schedule, 1000 steps: the variance of p(x_0 | x_1) cannot be beta_tilde_1."""
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    beta_tilde = beta * (1 - np.append(1.0, alpha_bar[:-1])) / (1 - alpha_bar)
    assert beta_tilde[0] == 0
    assert beta_tilde[1] == pytest.approx(5.4532e-5, rel=1e-4)

    def bits(variance: float) -> float:  # of a grey value 1/2 a bin from the predicted mean
        return -math.log2(math.erf(2 / 255 / math.sqrt(2 * variance)) / 2)

    assert bits(beta_tilde[1]) == pytest.approx(1.4904, abs=2e-4)
    assert bits(beta[0]) == pytest.approx(1.8182, abs=2e-4)
    with pytest.raises(ZeroDivisionError):
        bits(float(beta_tilde[0]))
