"""The one denoising loss: (schedule, prediction, weighting) -> a number. L2 and every fake score use it."""

import torch

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import Weighting
from pipeline.interfaces import NoiseLevel, Scalar, Video

LARGEST_LOG_SNR = 40.0  # in size; the factors have reached their limits there, and float64 has not


def denoising_loss(
    x0_hat: Video, x0: Video, t: NoiseLevel, *, schedule: Schedule, weighting: Weighting, counts: NoiseLevel
) -> Scalar:
    """The estimate of L_w from levels that the schedule drew: its mean does not depend on the schedule.

    Mean over frames of w / (2 p) |eps - eps_hat|^2 / D, each as often as `counts` says; frames of count 0 are
    context. arXiv:2303.00848, eq. 2.
    """
    error = (x0_hat - x0).float().square().mean(dim=(2, 3, 4))
    factor = loss_factor(t, schedule=schedule, weighting=weighting).masked_fill(counts == 0, 0).to(error)
    return (factor * counts * error).sum() / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)


def loss_factor(t: NoiseLevel, *, schedule: Schedule, weighting: Weighting) -> NoiseLevel:
    """On |x0 - x0_hat|^2: w / (2 p) times the SNR, in float64. Any number where t = 0, which carries no loss."""
    log_snr = schedule.log_snr(torch.where(t > 0, t, 0.5)).clamp(-LARGEST_LOG_SNR, LARGEST_LOG_SNR)
    weight = weighting.weight(log_snr, schedule.native)
    return weight / (2 * schedule.density(log_snr)) * torch.exp(log_snr)
