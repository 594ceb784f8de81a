"""Divergences between a Gaussian student and a process, clean or noised, as sums over nodes in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.densities import log_density, score
from pipeline.laboratory.laws import chain_law, pushed_forward
from pipeline.laboratory.quadrature import Levels, Nodes
from pipeline.models.linear_gaussian import Chain

LN2 = torch.log(torch.tensor(2.0, dtype=torch.float64))


@dataclass(frozen=True)
class Divergence:
    """E_student[at_student] + E_data[at_data], both functions of ln p and ln q there; p the student, q the data."""

    at_student: Callable[[Tensor, Tensor], Tensor] | None
    at_data: Callable[[Tensor, Tensor], Tensor] | None
    quadratic: bool  # in x, where p and q are Gaussians

    def by_level(self, comparison: "Comparison", chain: Chain) -> Tensor:
        """At every vector of levels, (L,)."""
        total = torch.zeros_like(comparison.levels.weights)
        sides = (self.at_student, comparison.at_student), (self.at_data, comparison.at_data)
        for integrand, draws in sides:
            if integrand is not None:
                log_p, log_q, weights = draws(chain)
                total = total + torch.tensordot(weights, integrand(log_p, log_q), dims=weights.ndim)
        return total


@dataclass(frozen=True)
class Fisher:
    """E_student |s_p - s_q|^2, the scores of the judged frames."""

    quadratic: ClassVar[bool] = True

    def by_level(self, comparison: "Comparison", chain: Chain) -> Tensor:
        """At every vector of levels, (L,)."""
        apart, weights = comparison.scores_apart(chain)
        return torch.einsum("kn,knlf->l", weights, apart.square())


FISHER = Fisher()
FORWARD_KL = Divergence(None, lambda p, q: q - p, quadratic=True)
REVERSE_KL = Divergence(lambda p, q: p - q, None, quadratic=True)
JENSEN_SHANNON = Divergence(
    lambda p, q: (LN2 - F.softplus(q - p)) / 2,  # ln p - ln m, m = (p + q) / 2
    lambda p, q: (LN2 - F.softplus(p - q)) / 2,
    quadratic=False,
)
SOFTENED_REVERSE_KL = Divergence(  # 2 KL(m || q) = KL(p || q) - 2 JSD: what the non-saturating GAN descends
    lambda p, q: F.softplus(p - q) - LN2,
    lambda p, q: F.softplus(p - q) - LN2,
    quadratic=False,
)


def entropy_weighted(beta: float) -> Divergence:
    """KL(p || q) + beta H(p). At beta = 1 the cross-entropy, which never asks for ln p."""
    if beta == 1:
        return Divergence(lambda p, q: -q, None, quadratic=True)  # noqa: ARG005
    return Divergence(lambda p, q: (1 - beta) * p - q, None, quadratic=True)


def distilled(cross_entropy: float, adversary: float) -> Divergence:
    """That much of the cross-entropy, and of the softened reverse KL."""

    def softened(p: Tensor, q: Tensor) -> Tensor:
        return adversary * (F.softplus(p - q) - LN2)

    return Divergence(lambda p, q: softened(p, q) - cross_entropy * q, softened, quadratic=False)


@runtime_checkable
class Comparison(Protocol):
    """A student's law against that of data, at levels; what does not depend on the student is computed once."""

    levels: Levels

    def at_student(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        """ln p and ln q at draws of the judged law, (*N, L), and the weights of the draws, (*N)."""
        ...

    def at_data(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        """The same at draws of data."""
        ...

    def scores_apart(self, chain: Chain) -> tuple[Tensor, Tensor]:
        """d ln p - d ln q of the judged frames at draws of their law, (K, N, L, F), and the weights, (K, N)."""
        ...


def value_of(divergence: Divergence | Fisher, comparison: Comparison, chain: Chain) -> Tensor:
    """Summed over levels with their weights; a divergence in nats a pixel."""
    return (divergence.by_level(comparison, chain) * comparison.levels.weights).sum()


class Clips:
    """Whole clips, every frame noised to its level."""

    def __init__(self, data: GaussianMixture, levels: Levels, nodes: Nodes) -> None:
        self.levels, self.nodes = levels, nodes
        self.data = data.noised(levels.alpha, levels.sigma)
        self._points = self.data.points(nodes.z)
        self._log_q = log_density(self.data, self._points)
        self._weights = data.shares[:, None] * nodes.weights

    def student(self, chain: Chain) -> GaussianMixture:
        """The student's law at the levels."""
        return noised_student(chain, self.levels)

    def at_student(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        law = self.student(chain)
        x = law.points(self.nodes.z)[0]
        half_square = self.nodes.z.square().sum(1)[:, None] / 2
        log_p = -half_square - log_scale(law.factors[:, 0])
        return log_p, log_density(self.data, x), self.nodes.weights

    def at_data(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        return log_density(self.student(chain), self._points), self._log_q, self._weights

    def scores_apart(self, chain: Chain) -> tuple[Tensor, Tensor]:
        law = self.student(chain)
        x = law.points(self.nodes.z)
        return score(law, x) - score(self.data, x), law.shares[:, None] * self.nodes.weights


class Restored(Clips):
    """Clips of data of which some frames are cleaned by the student, each set of them by chance: r against q.

    Diffusion forcing judges this: r is a push-forward of data, and no law of the student's own clips.
    """

    def __init__(self, data: GaussianMixture, levels: Levels, nodes: Nodes, cleaned: Independent) -> None:
        super().__init__(data, levels, nodes)
        self.clean, self.cleaned = data, cleaned

    def student(self, chain: Chain) -> GaussianMixture:
        return pushed_forward(self.cleaned, chain, self.clean).noised(self.levels.alpha, self.levels.sigma)

    def at_student(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        law = self.student(chain)
        x = law.points(self.nodes.z)
        return log_density(law, x), log_density(self.data, x), law.shares[:, None] * self.nodes.weights


class NextFrame:
    """The last frame, noised, after clean frames of data: q(x_<f) p(x_f | x_<f) against q(x_<=f).

    Teacher forcing judges this, frame by frame. The student's frame needs only the frame before.
    """

    def __init__(self, data: GaussianMixture, levels: Levels, nodes: Nodes) -> None:
        self.levels, self.nodes = levels, nodes
        self.data = data.noised(levels.alpha, levels.sigma)
        self._points = self.data.points(nodes.z)
        self._known = self._points[..., :-1]
        self._log_q_known = data.first(data.num_frames - 1).log_density(self._known[:, :, 0])[..., None]
        self._log_q = log_density(self.data, self._points) - self._log_q_known
        self._weights = data.shares[:, None] * nodes.weights

    def at_student(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        x, std = self._drawn(chain)
        log_p = (-(self.nodes.z[:, -1:] ** 2) / 2 - log_scale(std[:, None, None])).expand(x.shape[:-1])
        return log_p, log_density(self.data, x) - self._log_q_known, self._weights

    def at_data(self, chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = self._next(chain)
        z = (self._points[..., -1] - mean) / std
        return -(z**2) / 2 - log_scale(std[:, None, None]), self._log_q, self._weights

    def scores_apart(self, chain: Chain) -> tuple[Tensor, Tensor]:
        x, std = self._drawn(chain)
        apart = -self.nodes.z[:, -1:] / std - score(self.data, x)[..., -1]
        return apart[..., None], self._weights

    def _drawn(self, chain: Chain) -> tuple[Tensor, Tensor]:
        """Contexts with the student's next frame, and its standard deviation."""
        mean, std = self._next(chain)
        return torch.cat([self._known, (mean + std * self.nodes.z[:, -1:])[..., None]], -1), std

    def _next(self, chain: Chain) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.levels.alpha[:, -1], self.levels.sigma[:, -1]
        mean = alpha * chain.next_mean(self._known[..., -1])
        return mean, (alpha**2 * chain.s2**2 + sigma**2).sqrt()


def noised_student(chain: Chain, levels: Levels) -> GaussianMixture:
    """The law of the student's noised clips."""
    return chain_law(chain, levels.t.shape[1]).noised(levels.alpha, levels.sigma)


def log_scale(factor: Tensor) -> Tensor:
    """ln of the normalisation of N(0, factor factor^T), over the last two dimensions."""
    logs = factor.diagonal(dim1=-2, dim2=-1).log()
    return (logs + torch.log(torch.tensor(2 * torch.pi, dtype=logs.dtype)) / 2).sum(-1)
