"""A Gaussian student and SKEWED data on the line, with exact scores: what losses descend, by quadrature."""

import numpy as np
import torch
from scipy.optimize import root
from torch import nn

from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.interfaces import Rollout
from pipeline.losses.scores import Scores
from tests.closed_forms import HIGHEST, LOWEST, SKEWED, gaussian

SCHEDULE = FlowMatching()
MEAN, STD = 0.2, 0.7  # of the student where gradients are compared


def trapezoids(reach, num_nodes):
    """Nodes and weights of a standard normal; exact to 1e-12 for what varies no faster."""
    z = torch.linspace(-reach, reach, num_nodes, dtype=torch.float64)
    weights = torch.exp(-(z**2) / 2)
    return z, weights / weights.sum()


def legendre(num_nodes):
    """Nodes and weights of t ~ U[LOWEST, HIGHEST]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return torch.from_numpy((LOWEST + HIGHEST + (HIGHEST - LOWEST) * nodes) / 2), torch.from_numpy(weights / 2)


class Nodes:
    """z of the student's frame mean + std z, noise eps and level t: every triple, as clips of one value each."""

    def __init__(self, num_levels=24, num_normal=61, reach=9.0):
        (t, w_t), (z, w_z) = legendre(num_levels), trapezoids(reach, num_normal)
        grid = torch.cartesian_prod(t, z, z)
        self.t, self.z, self.eps = grid[:, :1], *(grid[:, k, None, None, None, None] for k in (1, 2))
        self.weights = torch.cartesian_prod(w_t, w_z, w_z).prod(1)[:, None, None, None, None]

    def mean_of(self, values):
        return (self.weights * values).sum()

    def frames(self, mean, std):
        """The student's frames and the same noised. Gradients flow to a mean and std that are tensors."""
        x0_hat = mean + std * self.z
        return x0_hat, add_noise(SCHEDULE, x0_hat, self.eps, self.t)

    def field(self, gradient):
        """Of the student's mean and std, from the gradient at its frames."""
        return self.mean_of(gradient).item(), self.mean_of(gradient * self.z).item()


class Exact(nn.Module):
    """E[x_0 | x_t] of data with this law."""

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, x_t, t):
        alpha, sigma = (c.expand_as(x_t).reshape(-1, 1) for c in SCHEDULE.at(t))
        z = x_t.reshape(-1)
        score = self.law.noised(alpha, sigma).score(z)
        return ((z + sigma[:, 0] ** 2 * score) / alpha[:, 0]).reshape(x_t.shape)


class ExactLogit(nn.Module):
    """ln q_t - ln p_t, the best discriminator's."""

    def __init__(self, real, fake):
        super().__init__()
        self.real, self.fake = real, fake

    def forward(self, x_t, t):
        alpha, sigma = (c.reshape(-1, 1) for c in SCHEDULE.at(t))  # clips of one value
        real, fake = (law.noised(alpha, sigma).log_density(x_t.reshape(-1)) for law in (self.real, self.fake))
        return real - fake


class ExactScores(Scores):
    """Both scores in closed form."""

    def __init__(self, fake, real):
        nn.Module.__init__(self)
        self.fake, self.real = fake, real

    @staticmethod
    def of(mean, std):
        return ExactScores(Exact(gaussian(mean, std)), Exact(SKEWED))


def rollout_of(x0_hat):
    """A rollout of which only the frames matter."""
    t = torch.ones(x0_hat.shape[:2], dtype=x0_hat.dtype)
    return Rollout(x0_hat=x0_hat, x_t=x0_hat, t=t, counts=t, target=None, denoise=lambda x, _: x)


def fixed_point(field, start):
    """Where the field of the student's mean and std vanishes, near `start`."""
    found = root(lambda at: field(*at), start, tol=1e-8)
    assert found.success, found.message
    return tuple(found.x)
