"""What losses with stop-gradients descend: fields of the student's parameters that need not be gradients.

Each is a number whose gradient at `chain`, with `frozen` the same student detached, is the field.
"""

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.densities import score
from pipeline.laboratory.divergences import REVERSE_KL, Clips, noised_student
from pipeline.laboratory.quadrature import Levels
from pipeline.models.linear_gaussian import Chain


def sid(alpha: float, data: GaussianMixture, clips: Clips, chain: Chain, frozen: Chain) -> Tensor:
    """E_t E_p[delta . (x0_hat of data - x_0) - alpha |delta|^2], delta = x0_hat of data - x0_hat of the critic.

    The critic is perfect and its weights are frozen; x_t and x_0 carry the gradient. Score identity distillation,
    arXiv:2404.04057, eq. 23, with the sign of its code.
    """
    levels = clips.levels
    x_t = clips.student(chain).points(clips.nodes.z)[0]
    real = _denoised(data, levels, x_t)
    delta = real - _denoised(_clean(frozen, levels), levels, x_t)
    own = _denoised(_clean(chain, levels), levels, x_t)  # E[x_0 | x_t]
    value = delta * (real - own) - alpha * delta.square()
    return torch.einsum("n,l,nlf->", clips.nodes.weights, levels.weights, value)


def dmd_detached(clips: Clips, chain: Chain, frozen: Chain) -> Tensor:
    """E_t E_p[sum_f alpha_f (s_p - s_q)_f dx_f], s_p of the frozen student.

    x_f moves with the parameters only as the step after x_{f-1}, as where the key-value cache is written without
    gradient. Were it to move with all of them, this would be the gradient of the reverse KL.
    """
    levels, frames = clips.levels, clips.levels.t.shape[1]
    law = noised_student(frozen, levels)
    x_t = law.points(clips.nodes.z)[0]
    pull = levels.alpha * (score(law, x_t) - score(clips.data, x_t))
    factor, mean = frozen.factor(frames), frozen.mean(frames)
    apart = x_t - levels.alpha * mean
    whitened = torch.cholesky_solve(apart[..., None], law.factors[:, 0])[..., 0]
    z = (levels.alpha * whitened) @ factor  # E[z | x_t] of x_0 = mean + factor z
    previous = mean[:-1] + (z @ factor.mT)[..., :-1]
    first = chain.m1 + chain.s1.abs() * z[..., :1]
    moved = torch.cat([first, chain.next_mean(previous) + chain.s2.abs() * z[..., 1:]], -1)
    return torch.einsum("n,l,nlf->", clips.nodes.weights, levels.weights, pull * moved)


def dmd_normalised(data: GaussianMixture, clips: Clips, chain: Chain, frozen: Chain) -> Tensor:
    """Reverse KL at each level over E mean_f|x_0 - x0_hat of data|: what DMD's normaliser is in many pixels."""
    levels = clips.levels
    x_t = noised_student(frozen, levels).points(clips.nodes.z)[0]
    own = _clean(frozen, levels)
    apart = _denoised(own, levels, x_t) - _denoised(data, levels, x_t)
    shared = own.covariances[0] * levels.alpha[:, None, :]  # P A
    solved = torch.cholesky_solve(shared.mT, noised_student(frozen, levels).factors[:, 0])
    std = (own.covariances[0] - shared @ solved).diagonal(dim1=-2, dim2=-1).sqrt()  # of x_0 given x_t
    ratio = apart / std
    mean_size = std * ((2 / torch.pi) ** 0.5 * torch.exp(-(ratio**2) / 2)) + apart * torch.erf(ratio / 2**0.5)
    scale = torch.einsum("n,nlf->l", clips.nodes.weights, mean_size) / levels.t.shape[1]
    return (REVERSE_KL.by_level(clips, chain) * levels.weights / scale).sum()


def denoising_excess(data: GaussianMixture, levels: Levels, weights: Tensor, chain: Chain) -> Tensor:
    """sum over levels and frames of weights (L, F) times |eps - eps_hat|^2 above that of the Gaussian with the
    moments of data, for the student's own denoiser. It is linear: only the moments of data matter.
    """
    frames = levels.t.shape[1]
    mean, factor = chain.mean(frames), chain.factor(frames)
    own = _linear_error(mean, factor @ factor.mT, data, levels)
    best = _linear_error(data.mean, data.covariance, data, levels)
    snr = (levels.alpha / levels.sigma).square().where(weights != 0, 0)  # clean frames carry no loss
    return (weights * snr * (own - best)).sum()


def _linear_error(mean: Tensor, covariance: Tensor, data: GaussianMixture, levels: Levels) -> Tensor:
    """E_data |x_0 - x0_hat|^2 by frame, (L, F), of the denoiser of N(mean, covariance)."""
    alpha, sigma = levels.alpha, levels.sigma
    noise = torch.diag_embed(sigma.square())
    shared = covariance * alpha[:, None, :]
    gain = torch.linalg.solve(alpha[:, :, None] * shared + noise, shared.mT).mT
    left = torch.eye(len(mean), dtype=mean.dtype) - gain * alpha[:, None, :]
    apart = data.mean - mean
    second = data.covariance + apart[:, None] * apart
    return (left @ second @ left.mT + gain @ noise @ gain.mT).diagonal(dim1=-2, dim2=-1)


def _clean(chain: Chain, levels: Levels) -> GaussianMixture:
    frames = levels.t.shape[1]
    return GaussianMixture(torch.ones(1, dtype=torch.float64), chain.mean(frames)[None], chain.factor(frames)[None])


def _denoised(law: GaussianMixture, levels: Levels, x_t: Tensor) -> Tensor:
    return law.denoised(x_t, levels.alpha, levels.sigma)
