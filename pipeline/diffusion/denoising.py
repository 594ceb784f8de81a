"""The one weighted denoising loss: the l2 loss and every fake score use it."""

import torch

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.interfaces import NoiseLevel, Scalar, Video


def denoising_loss(x0_hat: Video, x0: Video, t: NoiseLevel, *, schedule: Schedule, weighting: str) -> Scalar:
    """Mean over noisy frames of c(t) |x0 - x0_hat|^2 / D; frames at t = 0 are context and carry no loss.

    Kingma & Gao, arXiv:2303.00848, eq. 2, with the factor 1/2 left out.
    """
    is_noisy = t > 0
    at = schedule.at(torch.where(is_noisy, t, 0.5))  # any level will do where the weight is set to 0
    weight = WEIGHTINGS[weighting](at) * is_noisy[:, :, None, None, None]
    error = (x0_hat - x0).float().square()
    return (weight * error).mean() * (is_noisy.numel() / is_noisy.sum().clamp_min(1))
