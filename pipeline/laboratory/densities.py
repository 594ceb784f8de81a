"""Densities and scores of mixtures at many nodes: the logarithm of a component is a quadratic form, one product.

`GaussianMixture` says the same of any points; this is several times as fast, with its gradient, on grids of nodes.
"""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture


class Quadratic(NamedTuple):
    """ln of the joint densities of components and points, at levels: x^T A x + b^T x + c of every component."""

    second: Float[Tensor, "L K pairs"]  # of x_f x_g, f <= g
    first: Float[Tensor, "L K F"]
    constant: Float[Tensor, "L K"]
    precisions: Float[Tensor, "L K F F"]

    @staticmethod
    def of(law: GaussianMixture) -> "Quadratic":
        """Of a mixture at one or many vectors of levels."""
        precisions = torch.cholesky_inverse(law.factors)
        first = (precisions @ law.means[..., None])[..., 0]
        log_scale = (
            law.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1) + law.num_frames * math.log(2 * math.pi) / 2
        )
        constant = law.shares.log() - (first * law.means).sum(-1) / 2 - log_scale
        f, g = torch.triu_indices(law.num_frames, law.num_frames)
        twice = torch.where(f == g, 0.5, 1.0)  # a pair stands for both of its orders
        return Quadratic(-twice * precisions[..., f, g], first, constant, precisions)

    def log_joint(self, x: Float[Tensor, "*N L F"]) -> Float[Tensor, "*N L K"]:
        """ln shares_k N_k(x)."""
        frames = x.unbind(-1)
        pairs = [a * b for a, b in itertools.combinations_with_replacement(frames, 2)]
        features = torch.stack([*pairs, *frames, torch.ones_like(frames[0])], -1)
        coefficients = torch.cat([self.second, self.first, self.constant[..., None]], -1)
        return torch.einsum("...lp,lkp->...lk", features, coefficients)


def log_density(law: GaussianMixture, x: Float[Tensor, "*N L F"]) -> Float[Tensor, "*N L"]:
    """ln q(x) at every vector of levels."""
    return torch.logsumexp(Quadratic.of(law).log_joint(x), -1)


def score(law: GaussianMixture, x: Float[Tensor, "*N L F"]) -> Float[Tensor, "*N L F"]:
    """d ln q / dx: the mean over components, given x, of b - A x."""
    form = Quadratic.of(law)
    posterior = torch.softmax(form.log_joint(x), -1)
    towards = torch.einsum("...lk,lkf->...lf", posterior, form.first)
    return towards - torch.einsum("...lk,lkfg,...lg->...lf", posterior, form.precisions, x)
