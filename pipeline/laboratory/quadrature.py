"""Nodes and weights with which expectations become sums: over frames, and over noise levels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from pipeline.diffusion.schedule import FlowMatching, Schedule

LOWEST, HIGHEST = 0.02, 0.98  # levels at which scores are asked, of every loss here
# alpha, sigma -> w, with which E_t[w KL_t] weighs the levels of a clip that shares one
TIME_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "score": lambda alpha, sigma: torch.ones_like(alpha),  # noqa: ARG005
    "x0": lambda alpha, sigma: (sigma / alpha) ** 2,
}


@dataclass(frozen=True)
class Precision:
    """How finely everything is integrated."""

    step: tuple[float, ...]  # of trapezoids in standard deviations, by the number of frames that they cover
    reach: float  # where they end
    num_shared: int  # Gauss-Legendre nodes of one level
    num_independent: tuple[int, ...]  # the same at each frame of a clip, by the number of frames
    num_sobol: int  # points over more frames, a power of 2; as many again are their opposites
    seed: int = 0  # of the scrambling

    def num_levels(self, num_frames: int) -> int:
        """Nodes of each of the levels of a clip, where they are independent."""
        return self.num_independent[min(num_frames, len(self.num_independent)) - 1]


COARSE = Precision((0.1, 0.4, 0.9, 1.2), 5.0, 8, (8, 5, 4, 3), 2**9)
CHECK = Precision((0.07, 0.22, 0.6, 1.0), 5.5, 12, (12, 7, 6, 6), 2**12, seed=1)
FINE = Precision((0.05, 0.17, 0.45, 0.85), 6.0, 18, (18, 9, 8, 8), 2**13)


class Nodes(NamedTuple):
    """sum weights f(z) = E f(z), z ~ N(0, I)."""

    z: Float[Tensor, "N F"]
    weights: Float[Tensor, " N"]


@dataclass(frozen=True, eq=False)
class Levels:
    """Vectors of levels, one a row: x_t = alpha x_0 + sigma eps frame by frame; expectations over them are sums."""

    t: Float[Tensor, "L F"]
    alpha: Float[Tensor, "L F"]
    sigma: Float[Tensor, "L F"]
    weights: Float[Tensor, " L"]

    def weighted(self, weight: Callable[[Tensor, Tensor], Tensor]) -> "Levels":
        """With a time weight that reads the last frame's level, which all noised frames share."""
        return Levels(self.t, self.alpha, self.sigma, self.weights * weight(self.alpha[:, -1], self.sigma[:, -1]))


def normal_nodes(num_frames: int, precision: Precision, *, quadratic: bool = False) -> Nodes:
    """Nodes over frames: a grid of trapezoids up to four, else Sobol points with the moments of the normal.

    Trapezoids of an analytic function err by exp(-2 pi d / step), d the distance of its nearest singularity from
    the real line. quadratic: 2 F nodes that are exact for polynomials up to degree three.
    """
    if quadratic:
        arm = num_frames**0.5 * torch.eye(num_frames, dtype=torch.float64)
        return Nodes(torch.cat([arm, -arm]), torch.full((2 * num_frames,), 0.5 / num_frames).double())
    if num_frames > len(precision.step):
        return _sobol_nodes(num_frames, precision)
    count = round(precision.reach / precision.step[num_frames - 1])
    line = torch.linspace(-precision.reach, precision.reach, 2 * count + 1, dtype=torch.float64)
    z = torch.cartesian_prod(*[line] * num_frames).reshape(-1, num_frames)
    z = z[z.norm(dim=1) <= precision.reach]  # corners weigh nothing
    weights = torch.exp(-z.square().sum(1) / 2)
    return Nodes(z, weights / weights.sum())


def _sobol_nodes(num_frames: int, precision: Precision) -> Nodes:
    """Each point with its opposite, stretched to unit covariance: exact for polynomials up to degree three."""
    sobol = qmc.Sobol(num_frames, rng=precision.seed)
    half = torch.from_numpy(ndtri(sobol.random(precision.num_sobol)))
    whiten = torch.linalg.cholesky(half.mT @ half / len(half))
    half = torch.linalg.solve_triangular(whiten, half.mT, upper=False).mT
    z = torch.cat([half, -half])
    return Nodes(z, torch.full((len(z),), 1 / len(z), dtype=torch.float64))


def clean(num_frames: int) -> Levels:
    """No noise at all."""
    ones = torch.ones(1, num_frames, dtype=torch.float64)
    return Levels(0 * ones, ones, 0 * ones, torch.ones(1, dtype=torch.float64))


def shared(
    num_frames: int, num_nodes: int, *, low: float = LOWEST, high: float = HIGHEST, schedule: Schedule | None = None
) -> Levels:
    """t ~ U[low, high], the same at all frames."""
    t, weights = _legendre(num_nodes, low, high)
    return _levels(t[:, None].expand(-1, num_frames), weights, schedule)


def after_clean(
    num_frames: int, num_nodes: int, *, low: float = LOWEST, high: float = HIGHEST, schedule: Schedule | None = None
) -> Levels:
    """t ~ U[low, high] at the last frame, clean frames before it."""
    t, weights = _legendre(num_nodes, low, high)
    return _levels(torch.nn.functional.pad(t[:, None], (num_frames - 1, 0)), weights, schedule)


def independent(
    num_frames: int, num_nodes: int, *, low: float = LOWEST, high: float = HIGHEST, schedule: Schedule | None = None
) -> Levels:
    """t ~ U[low, high] at each frame, independently."""
    t, weights = _legendre(num_nodes, low, high)
    every = torch.cartesian_prod(*[t] * num_frames).reshape(-1, num_frames)
    products = torch.cartesian_prod(*[weights] * num_frames).reshape(-1, num_frames).prod(1)
    return _levels(every, products, schedule)


def _levels(t: Tensor, weights: Tensor, schedule: Schedule | None) -> Levels:
    alpha, sigma = (c[:, :, 0, 0, 0] for c in (schedule or FlowMatching()).at(t))
    return Levels(t, alpha, sigma, weights)


def _legendre(num_nodes: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Nodes in u, t = sin^2(pi u / 2): losses bend near t = 0 and t = 1, where these stand closer."""
    ends = 2 / np.pi * np.arcsin(np.sqrt([low, high]))
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    u = (ends.sum() + np.diff(ends) * nodes) / 2
    density = np.pi / 2 * np.sin(np.pi * u) * np.diff(ends) / (high - low)
    return torch.from_numpy(np.sin(np.pi * u / 2) ** 2), torch.from_numpy(weights / 2 * density)
