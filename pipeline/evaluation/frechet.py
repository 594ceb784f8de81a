"""The Fréchet distance between Gaussians, by singular values of the roots: exact for singular covariances too."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

Features = Float64[Tensor, "_ D"]  # of any number of samples


@dataclass(frozen=True)
class Moments:
    """A Gaussian by its mean (D,) and a root R (D, D) of its covariance, R R^T = S; float64."""

    mean: Float64[Tensor, " D"]
    root: Float64[Tensor, "D D"]


def moments(features: Features, weights: Float64[Tensor, " N"] | None = None) -> Moments:
    """Mean and covariance (over N - 1) of features; with weights, each counts so many times (they sum to N).

    Raises:
        ValueError: fewer than two samples.
    """
    num_samples = len(features)
    if num_samples < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {num_samples}")
    if weights is None:
        mean = features.mean(dim=0)
        centred = features - mean
    else:
        mean = weights @ features / num_samples
        centred = (features - mean) * weights.sqrt()[:, None]
    eigenvalues, eigenvectors = torch.linalg.eigh(centred.T @ centred / (num_samples - 1))
    return Moments(mean, eigenvectors * eigenvalues.clamp_min(0).sqrt())


def moments_distance(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), the squared 2-Wasserstein distance of the two Gaussians.

    tr (S1 S2)^(1/2) is the sum of the singular values of R1^T R2: no root of a product, which loses half of the
    digits where a covariance is singular. Dowson & Landau 1982; as FVD, arXiv:1812.01717.
    """
    shift = (first.mean - second.mean).square().sum()
    spread = first.root.square().sum() + second.root.square().sum()
    return float(shift + spread - 2 * torch.linalg.svdvals(first.root.T @ second.root).sum())


def frechet_distance(first: Features, second: Features) -> float:
    """Between the Gaussians of two sets of features; any number of samples from 2, any rank."""
    return moments_distance(moments(first), moments(second))
