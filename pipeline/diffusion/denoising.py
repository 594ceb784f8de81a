"""The one weighted denoising loss: the l2 loss and every fake score use it."""

import torch

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.interfaces import NoiseLevel, Scalar, Video


def denoising_loss(
    x0_hat: Video, x0: Video, t: NoiseLevel, *, schedule: Schedule, weighting: str, first_weight: float = 1.0
) -> Scalar:
    """Mean over noisy frames of c(t) |x0 - x0_hat|^2 / D; frames at t = 0 are context and carry no loss.

    The first frame counts first_weight times in the mean. Kingma & Gao, arXiv:2303.00848, eq. 2, without its 1/2.
    """
    counts = (t > 0).float()
    counts[:, 0] *= first_weight
    at = schedule.at(torch.where(t > 0, t, 0.5))  # any level will do where the weight is set to 0
    weight = WEIGHTINGS[weighting](at) * counts[:, :, None, None, None]
    error = (x0_hat - x0).float().square()
    return (weight * error).mean() * (counts.numel() / counts.sum().clamp_min(1))
