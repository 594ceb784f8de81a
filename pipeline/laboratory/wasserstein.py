"""The squared Wasserstein-2 distance between a student and data: exact, or of two frames extrapolated to it."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.flows import noise_of
from pipeline.laboratory.quadrature import Precision, normal_nodes
from pipeline.laboratory.sinkhorn import SinkhornDivergence
from pipeline.models.linear_gaussian import Chain

BLUR = 2.0  # of two frames, in variances of data times the squared step of a precision


def has_wasserstein(data: GaussianMixture) -> bool:
    """Whether the distance is known: of up to two frames, and of Gaussians."""
    return data.num_frames <= 2 or data.num_components == 1


def squared_wasserstein(data: GaussianMixture, precision: Precision) -> Callable[[Chain], Tensor]:
    """W2^2 as a function of the student.

    On the line E_q (x - m - s Phi^-1(Q(x)))^2, Q the distribution function of data. For Gaussians
    |m - mu|^2 + tr P + tr C - 2 tr (C^1/2 P C^1/2)^1/2. For mixtures of two frames the Sinkhorn divergence of two
    blurs, extrapolated to none.

    Raises:
        ValueError: mixtures of more frames.
    """
    if not has_wasserstein(data):
        raise ValueError(
            f"data must have at most two frames or one component for this distance, got {data.num_frames} frames "
            f"and {data.num_components} components"
        )
    if data.num_components == 1:
        return lambda chain: _of_gaussians(data, chain)
    return _on_the_line(data, precision) if data.num_frames == 1 else _of_two_frames(data, precision)


def _on_the_line(data: GaussianMixture, precision: Precision) -> Callable[[Chain], Tensor]:
    nodes = normal_nodes(1, precision)
    x = data.points(nodes.z)
    weights = data.shares[:, None] * nodes.weights
    cross = (weights * (x * noise_of(data.next_frame(x[..., :0]), x))[..., 0]).sum()

    def distance(chain: Chain) -> Tensor:
        spread = data.covariance[0, 0] + chain.s1**2 - 2 * chain.s1.abs() * cross
        return (data.mean[0] - chain.m1) ** 2 + spread

    return distance


def _of_two_frames(data: GaussianMixture, precision: Precision) -> Callable[[Chain], Tensor]:
    """Richardson's extrapolation of an error that begins with blur^2; arXiv:2006.08172, section 3."""
    blur = BLUR * precision.step[1] ** 2 * data.covariance.trace().item() / 2
    near, far = SinkhornDivergence(data, blur), SinkhornDivergence(data, 2 * blur)

    def distance(chain: Chain) -> Tensor:
        factor = chain.factor(2)
        return (data.mean - chain.mean(2)).square().sum() + (4 * near(factor) - far(factor)) / 3

    return distance


def _of_gaussians(data: GaussianMixture, chain: Chain) -> Tensor:
    mean, factor = chain.mean(data.num_frames), chain.factor(data.num_frames)
    cross = torch.linalg.svdvals(data.factors[0].mT @ factor).sum()
    return (data.mean - mean).square().sum() + data.covariance.trace() + factor.square().sum() - 2 * cross
