"""Distributions of known density, score and denoiser, and divergences between them by quadrature, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

GRID = torch.linspace(
    -16.0, 18.0, 6801, dtype=torch.float64
)  # step .005: trapezoids are exact to 1e-12 for sd >= .02
LOWEST, HIGHEST = 0.02, 0.98  # flow-matching times over which `noise_average` averages


class Mixture(NamedTuple):
    """A mixture of Gaussians on the line: shares, means and standard deviations, (K,) each."""

    shares: Tensor
    means: Tensor
    sds: Tensor

    def noised(self, alpha: float | Tensor, sigma: float | Tensor) -> "Mixture":
        """The law of alpha x + sigma eps."""
        return Mixture(self.shares, alpha * self.means, (alpha**2 * self.sds**2 + sigma**2) ** 0.5)

    def log_density(self, x: Tensor) -> Tensor:
        """ln q(x), of the shape of x."""
        z = (x[..., None] - self.means) / self.sds
        return torch.logsumexp(self.shares.log() - self.sds.log() - z**2 / 2, dim=-1) - np.log(2 * np.pi) / 2

    def score(self, x: Tensor) -> Tensor:
        """d ln q / dx, of the shape of x."""
        z = (x[..., None] - self.means) / self.sds
        posterior = torch.softmax(self.shares.log() - self.sds.log() - z**2 / 2, dim=-1)
        return -(posterior * z / self.sds).sum(dim=-1)

    def denoiser(self, z: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """E[x | alpha x + sigma eps = z], by Tweedie's formula."""
        return (z + sigma**2 * self.noised(alpha, sigma).score(z)) / alpha

    def mean_of(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """E[values(x)]."""
        return integral(self.log_density(GRID).exp() * values(GRID))


def mixture(shares: list[float], means: list[float], sds: list[float]) -> Mixture:
    """A mixture from plain numbers."""
    return Mixture(*(torch.tensor(values, dtype=torch.float64) for values in (shares, means, sds)))


def gaussian(mean: float | Tensor, sd: float | Tensor) -> Mixture:
    """A Gaussian; gradients flow to a mean and a standard deviation that are tensors."""
    parameters = [torch.as_tensor(value, dtype=torch.float64).reshape(1) for value in (mean, sd)]
    return Mixture(torch.ones(1, dtype=torch.float64), *parameters)


SKEWED = mixture([0.75, 0.25], [0.0, 2.0], [0.5, 1.0])  # mean .5, standard deviation 1.0897
BIMODAL = mixture([0.65, 0.35], [-1.5, 1.5], [0.6, 0.6])  # two modes, far apart


def integral(values: Tensor) -> Tensor:
    """Trapezoids over GRID."""
    return torch.trapezoid(values, GRID)


def kl(p: Mixture, q: Mixture) -> Tensor:
    """KL(p || q)."""
    return p.mean_of(lambda x: p.log_density(x) - q.log_density(x))


def kl_of_middle(p: Mixture, q: Mixture) -> Tensor:
    """KL((p + q) / 2 || q), the softened reverse KL."""
    return integral(_middle(p, q).exp() * (_middle(p, q) - q.log_density(GRID)))


def jsd(p: Mixture, q: Mixture) -> Tensor:
    """Jensen-Shannon divergence, at most ln 2."""
    middle = _middle(p, q)
    return (p.mean_of(lambda x: p.log_density(x) - middle) + q.mean_of(lambda x: q.log_density(x) - middle)) / 2


def _middle(p: Mixture, q: Mixture) -> Tensor:
    return torch.logaddexp(p.log_density(GRID), q.log_density(GRID)) - np.log(2)


def entropy(p: Mixture) -> Tensor:
    """Differential entropy of p, in nats."""
    return p.mean_of(lambda x: -p.log_density(x))


def cross_entropy(p: Mixture, q: Mixture) -> Tensor:
    """-E_p[ln q]."""
    return p.mean_of(lambda x: -q.log_density(x))


def noise_average(value: Callable[[Tensor], Tensor], num_nodes: int = 24) -> Tensor:
    """E[value(t)] over t ~ U[LOWEST, HIGHEST], by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    times = torch.from_numpy((LOWEST + HIGHEST + (HIGHEST - LOWEST) * nodes) / 2)
    return sum(
        (w / 2 * value(t) for w, t in zip(weights, times, strict=True)), torch.zeros((), dtype=torch.float64)
    )


def flow(q: Mixture, t: float | Tensor) -> Mixture:
    """The law of (1 - t) x + t eps."""
    return q.noised(1 - t, t)


def normal_nodes(num_nodes: int = 60) -> tuple[Tensor, Tensor]:
    """Nodes z, weights w: sum w f(z) = E[f(z)], z ~ N(0, 1), exact for polynomials of degree < 2 num_nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def minimum(value: Callable[..., Tensor], *start: float) -> tuple[float, ...]:
    """Where value is least near the numbers `start`, by BFGS on its gradient."""

    def with_slope(at: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in at]
        result = value(*parameters)
        return result.item(), np.array([slope.item() for slope in torch.autograd.grad(result, parameters)])

    return tuple(minimize(with_slope, np.array(start), jac=True, method="BFGS").x)


def gradient(value: Callable[..., Tensor], *at: float) -> tuple[float, ...]:
    """The gradient of value at the numbers `at`, by autograd."""
    parameters = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in at]
    slopes = torch.autograd.grad(value(*parameters), parameters, allow_unused=True)
    return tuple(0.0 if slope is None else slope.item() for slope in slopes)


def gaussian_kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(N(0, p) || N(0, q)) of covariance matrices."""
    log_ratio = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
    return float((np.trace(np.linalg.solve(q, p)) - len(p) + log_ratio) / 2)
