"""One step of a sampler: frames at level t, and the denoiser's answers, become frames at a lower level t_next.

All steps follow from x_t = alpha x_0 + sigma eps through x0_hat = D(x_t, t). `noise_left` is EDM's noise
sigma / alpha at t_next as a share of that at t: 0 from pure noise and to clean frames, 1 where nothing moves. Every
update is written so that it is finite at both ends, scales with the family of the schedule, and is x0_hat itself at
t_next = 0. Frames whose levels are equal stay as they are.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from pipeline.diffusion.log_snr import Coefficients, PerFrame
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Denoise, NoiseLevel, Video
from pipeline.rules import within
from pipeline.streams import noise_like

PURE_NOISE = 1e4  # sigma / alpha from which a frame has no signal that a slope could be taken from


@runtime_checkable
class Step(Protocol):
    """From level t to t_next. num_calls: of the denoiser, at most; one is enough when all frames arrive at 0."""

    num_calls: ClassVar[int]

    def __call__(
        self,
        schedule: Schedule,
        x_t: Video,
        t: NoiseLevel,
        t_next: NoiseLevel,
        denoise: Denoise,
        rng: Generator,
    ) -> Video:
        """The frames at t_next. Raises ValueError where t_next is above t."""
        ...


class Ends(NamedTuple):
    """What a step goes between; where nothing moves, numbers by which one can divide."""

    at: Coefficients
    to: Coefficients
    noise_left: PerFrame  # (sigma / alpha at t_next) / (sigma / alpha at t), in [0, 1]
    moves: Bool[Tensor, "B T 1 1 1"]


def ends(schedule: Schedule, t: Tensor, t_next: Tensor) -> Ends:
    """The coefficients of every frame at both ends.

    Raises:
        ValueError: a level outside [0, 1], or t_next above t: a step never goes up.
    """
    at, to = schedule.at(t), schedule.at(t_next)
    if t.shape != t_next.shape:
        raise ValueError(f"t_next must have the shape of t: {tuple(t_next.shape)} and {tuple(t.shape)}")
    if (t_next > t).any():
        frame = tuple(torch.nonzero(t_next > t)[0].tolist())
        raise ValueError(
            f"t_next must be at most t, since a step never goes up: t_next={t_next[frame]:g} and t={t[frame]:g} of "
            f"frame {frame}"
        )
    moves = (t_next < t)[:, :, None, None, None]
    at = Coefficients(*(c.where(moves, 1.0) for c in at))
    to = Coefficients(*(c.where(moves, 1.0) for c in to))
    noise_left = (at.alpha / to.alpha) * (to.sigma / at.sigma)
    return Ends(at, to, noise_left.clamp_max(1), moves)  # above 1 by rounding only


@dataclass(frozen=True)
class Renoise:
    """Fresh noise of level t_next on x0_hat: the chain of few-step students. arXiv:2303.01469, algorithm 1."""

    num_calls: ClassVar[int] = 1

    def __call__(
        self, schedule: Schedule, x_t: Video, t: NoiseLevel, t_next: NoiseLevel, denoise: Denoise, rng: Generator
    ) -> Video:
        """x = alpha x0_hat + sigma n at t_next, whatever x_t was."""
        _, (alpha, sigma), _, moves = ends(schedule, t, t_next)
        x0_hat = denoise(x_t, t)
        return torch.where(moves, alpha * x0_hat + sigma * _fresh_noise(x_t, t_next, rng), x_t)


@dataclass(frozen=True)
class DDPM:
    """Ancestral: a draw from q(x_next | x_t, x0_hat), with the variance of this posterior.

    With r = noise_left^2: mean = (alpha_t sigma_next^2 / (alpha_next sigma_t^2)) x_t + alpha_next (1 - r) x0_hat,
    variance = sigma_next^2 (1 - r). DDPM, arXiv:2006.11239, eq. 6 and 7.
    """

    num_calls: ClassVar[int] = 1

    def __call__(
        self, schedule: Schedule, x_t: Video, t: NoiseLevel, t_next: NoiseLevel, denoise: Denoise, rng: Generator
    ) -> Video:
        """A draw from the posterior."""
        at, to, noise_left, moves = ends(schedule, t, t_next)
        x0_hat = denoise(x_t, t)
        removed = 1 - noise_left**2
        mean = noise_left * (to.sigma / at.sigma) * x_t + to.alpha * removed * x0_hat
        return torch.where(moves, mean + to.sigma * removed.sqrt() * _fresh_noise(x_t, t_next, rng), x_t)


@dataclass(frozen=True)
class DDIM:
    """Keep the noise that x0_hat implies, but for a share that is drawn anew. arXiv:2010.02502, eq. 12 and 16.

    The fresh noise has standard deviation sigma_next eta sqrt(1 - noise_left^2). eta = 0 is deterministic and draws
    nothing; eta = 1 has the mean and the variance of DDPM.
    """

    eta: float = 0.0
    num_calls: ClassVar[int] = 1

    def __post_init__(self) -> None:
        within(0, 1, eta=self.eta)

    def __call__(
        self, schedule: Schedule, x_t: Video, t: NoiseLevel, t_next: NoiseLevel, denoise: Denoise, rng: Generator
    ) -> Video:
        """x = alpha x0_hat + sigma (kept eps_hat + fresh n) at t_next, with kept^2 + fresh^2 = 1."""
        at, to, noise_left, moves = ends(schedule, t, t_next)
        x0_hat = denoise(x_t, t)
        eps = (x_t - at.alpha * x0_hat) / at.sigma
        if self.eta > 0:
            fresh = self.eta * (1 - noise_left**2).sqrt()
            eps = (1 - fresh**2).sqrt() * eps + fresh * _fresh_noise(x_t, t_next, rng)
        return torch.where(moves, to.alpha * x0_hat + to.sigma * eps, x_t)


@dataclass(frozen=True)
class Euler:
    """Euler's step of the probability-flow equation dy/ds = (y - D) / s of y = x / alpha over s = sigma / alpha.

    It is DDIM with eta 0, exactly; on the flow-matching path also Euler's step in t. arXiv:2206.00364, eq. 4.
    """

    num_calls: ClassVar[int] = 1

    def __call__(
        self,
        schedule: Schedule,
        x_t: Video,
        t: NoiseLevel,
        t_next: NoiseLevel,
        denoise: Denoise,
        rng: Generator,  # noqa: ARG002 - deterministic
    ) -> Video:
        """Along the slope at t."""
        between = ends(schedule, t, t_next)
        return torch.where(between.moves, _euler(between, x_t, denoise(x_t, t)), x_t)


@dataclass(frozen=True)
class Heun:
    """Heun's second-order step of the same equation: the mean of the slopes at both ends.

    Where noise_left is 0 there is only one slope, and the step is Euler's: from pure noise (sigma / alpha infinite,
    here above PURE_NOISE) and to clean frames. EDM, arXiv:2206.00364, algorithm 1.
    """

    num_calls: ClassVar[int] = 2

    def __call__(
        self,
        schedule: Schedule,
        x_t: Video,
        t: NoiseLevel,
        t_next: NoiseLevel,
        denoise: Denoise,
        rng: Generator,  # noqa: ARG002 - deterministic
    ) -> Video:
        """Euler's x, then x + (alpha_next / 2) (1 / noise_left - 1) (D(x, t_next) - x0_hat)."""
        between = ends(schedule, t, t_next)
        at, to, noise_left, moves = between
        x0_hat = denoise(x_t, t)
        x_next = torch.where(moves, _euler(between, x_t, x0_hat), x_t)
        corrected = moves & (to.sigma > 0) & (at.sigma < PURE_NOISE * at.alpha)
        if not corrected.any():
            return x_next
        weight = to.alpha / 2 * (1 / noise_left.where(corrected, 1.0) - 1)
        return torch.where(corrected, x_next + weight * (denoise(x_next, t_next) - x0_hat), x_next)


STEPS: dict[str, type[Step]] = {"renoise": Renoise, "ddpm": DDPM, "ddim": DDIM, "euler": Euler, "heun": Heun}


def _euler(between: Ends, x_t: Video, x0_hat: Video) -> Video:
    """alpha_next (y + (s_next - s) (y - D) / s), without a division by alpha."""
    at, to, noise_left, _ = between
    return to.sigma / at.sigma * x_t + to.alpha * (1 - noise_left) * x0_hat


def _fresh_noise(x: Video, t_next: NoiseLevel, rng: Generator) -> Video:
    """Standard Gaussian noise; none is drawn when all frames arrive at t = 0."""
    return noise_like(x, rng) if bool(t_next.any()) else torch.zeros_like(x)
