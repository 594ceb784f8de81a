"""The one weighted denoising loss: the l2 loss and every fake score use it."""

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.interfaces import NoiseLevel, Scalar, Video


def denoising_loss(x0_hat: Video, x0: Video, t: NoiseLevel, *, schedule: Schedule, weighting: str) -> Scalar:
    """Mean over noisy frames of c(t) |x0 - x0_hat|^2 / D; frames at t = 0 are context and carry no loss.

    Kingma & Gao, arXiv:2303.00848, eq. 2, with the factor 1/2 left out.
    """
    noisy = (t > 0).nonzero(as_tuple=True)
    at = schedule.at(t)
    weight = WEIGHTINGS[weighting](type(at)(at.alpha[noisy], at.sigma[noisy]))
    error = (x0_hat[noisy] - x0[noisy]).float().square()
    return (weight * error).mean() if len(noisy[0]) else x0_hat.sum() * 0.0
