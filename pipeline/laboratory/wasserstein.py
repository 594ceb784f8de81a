"""The squared Wasserstein-2 distance between a student and data, where it is known exactly."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.flows import noise_of
from pipeline.laboratory.quadrature import Nodes
from pipeline.models.linear_gaussian import Chain


def squared_wasserstein(data: GaussianMixture, nodes: Nodes | None) -> Callable[[Chain], Tensor]:
    """W2^2 as a function of the student: of any mixture on the line, or of Gaussian clips.

    On the line E_q (x - m - s Phi^-1(Q(x)))^2, Q the distribution function of data, at `nodes`. For Gaussians
    |m - mu|^2 + tr P + tr C - 2 tr (C^1/2 P C^1/2)^1/2.

    Raises:
        ValueError: data that are neither.
    """
    if data.num_frames == 1 and nodes is not None:
        return _on_the_line(data, nodes)
    if data.num_components > 1:
        raise ValueError(
            f"data must be one frame or one Gaussian for an exact distance, got {data.num_frames} frames and "
            f"{data.num_components} components"
        )
    return lambda chain: _of_gaussians(data, chain)


def _on_the_line(data: GaussianMixture, nodes: Nodes) -> Callable[[Chain], Tensor]:
    x = data.points(nodes.z)
    weights = data.shares[:, None] * nodes.weights
    cross = (weights * (x * noise_of(data.next_frame(x[..., :0]), x))[..., 0]).sum()

    def distance(chain: Chain) -> Tensor:
        spread = data.covariance[0, 0] + chain.s1**2 - 2 * chain.s1.abs() * cross
        return (data.mean[0] - chain.m1) ** 2 + spread

    return distance


def _of_gaussians(data: GaussianMixture, chain: Chain) -> Tensor:
    mean, factor = chain.mean(data.num_frames), chain.factor(data.num_frames)
    cross = torch.linalg.svdvals(data.factors[0].mT @ factor).sum()
    return (data.mean - mean).square().sum() + data.covariance.trace() + factor.square().sum() - 2 * cross
