"""Paths from noise to clean frames: the levels of a sampler, and one step down from one level to the next."""

from collections.abc import Callable

from torch import Generator

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import above, at_least
from pipeline.streams import noise_like

Step = Callable[[Schedule, Video, Video, NoiseLevel, NoiseLevel, Generator], Video]


def step_levels(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """The levels at which a sampler calls the denoiser: u = 1, (n-1)/n, ..., 1/n, shifted to k u / (1 + (k - 1) u).

    The schedule shifts them again; what counts is the product of both. At 5, four steps are the warped steps 1,
    .9375, .8333, .625 of Self-Forcing, arXiv:2506.08009.
    """
    at_least(1, num_steps=num_steps)
    above(0, shift=shift)
    uniform = ((num_steps - k) / num_steps for k in range(num_steps))
    return tuple(shift * u / (1 + (shift - 1) * u) for u in uniform)


def renoise_step(
    schedule: Schedule,
    x_t: Video,  # noqa: ARG001 - forgotten: that is what makes it a re-noising step
    x0_hat: Video,
    t: NoiseLevel,  # noqa: ARG001
    t_next: NoiseLevel,
    rng: Generator,
) -> Video:
    """Add fresh noise of level t_next to x0_hat: the chain of few-step students. arXiv:2303.01469, algorithm 1."""
    return add_noise(schedule, x0_hat, noise_like(x0_hat, rng), t_next)


def ddim_step(
    schedule: Schedule,
    x_t: Video,
    x0_hat: Video,
    t: NoiseLevel,
    t_next: NoiseLevel,
    rng: Generator,  # noqa: ARG001 - deterministic
) -> Video:
    """Keep the noise that x0_hat implies; on the flow-matching path, Euler's step. arXiv:2010.02502, eq. 12."""
    alpha, sigma = schedule.at(t)
    return add_noise(schedule, x0_hat, (x_t - alpha * x0_hat) / sigma, t_next)


STEPS: dict[str, Step] = {"renoise": renoise_step, "ddim": ddim_step}
